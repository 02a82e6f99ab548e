#!/bin/sh
# Chooses a Python and hands over to setup.py, which needs 3.11 to 3.13. `make setup` runs it.
#
#   [PYTHON=python3.12] [TORCH=cpu|cuda] [TORCH_INDEX=URL] infra/setup/setup.sh
set -eu
cd "$(dirname "$0")/../.."

# Runs it: a name in PATH may be the shim of a version that is not activated.
fits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

choose() {
    if [ -n "${PYTHON:-}" ]; then
        set -- "$PYTHON"
    else
        set -- .venv/bin/python python3.13 python3.12 python3.11 python3
    fi
    for candidate; do
        if fits "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    found=$("$1" -c 'import platform; print("is Python", platform.python_version())' 2>/dev/null) || found="does not run"
    if [ -n "${PYTHON:-}" ]; then
        echo "setup: PYTHON=$PYTHON $found: Nightjar needs Python 3.11, 3.12 or 3.13" >&2
    else
        echo "setup: no Python 3.11, 3.12 or 3.13 in PATH: install one, or name it: make setup PYTHON=/path/to/python3.12" >&2
    fi
    return 2
}

python=$(choose)
exec "$python" -m infra.setup
