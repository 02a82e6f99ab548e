#!/bin/sh
# Make .venv with a Python that Nightjar runs on, and install everything into it. `make setup` runs this script.
#
#   [PYTHON=python3.12] [TORCH=cpu|cuda] [TORCH_INDEX=URL] infra/setup/setup.sh
#
# uv makes .venv. If no Python in PATH fits, uv downloads one. If there is no uv, it is installed in .cache/uv, with any
# Python that is found.
set -eu
cd "$(dirname "$0")/../.."

VERSIONS="3.11, 3.12 or 3.13"
OWN_UV=.cache/uv/bin/uv

fail() {
    echo "setup: $*" >&2
    exit 2
}

# Print the version of a Python, such as 3.12. The Python is started: a name in PATH may be a shim that does not run.
version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

fits() {
    case $(version "$1") in
        3.11 | 3.12 | 3.13) ;;
        *) return 1 ;;
    esac
}

# True for a .venv that was made in this folder, with the version of Python that PYTHON has.
is_ready() {
    fits .venv/bin/python || return 1
    made_in=$(set +eu && . .venv/bin/activate >/dev/null 2>&1 && echo "$VIRTUAL_ENV") || return 1
    [ "$made_in" = "$(cd .venv && pwd -P)" ] || return 1
    [ -z "${PYTHON:-}" ] || [ "$(version .venv/bin/python)" = "$(version "$PYTHON")" ]
}

check_python() {
    [ -n "${PYTHON:-}" ] && ! fits "$PYTHON" || return 0
    found=$(version "$PYTHON") && found="is Python $found" || found="does not run"
    fail "PYTHON=$PYTHON $found: Nightjar needs Python $VERSIONS"
}

has_venv() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

# Print a Python that can install uv. It needs the module venv, which is a separate package on Debian and Ubuntu.
python_for_uv() {
    for python in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python; do
        found=$(version "$python") || continue
        has_venv "$python" || "$python" -m infra.setup.apt "python$found-venv" python3-venv >&2 || true
        if has_venv "$python"; then
            echo "$python"
            return
        fi
    done
    return 1
}

# Set the variable uv to the uv in PATH, or else to the one in .cache/uv. If both are missing, install the latter with
# the version and the hashes in the lock.
find_uv() {
    for uv in uv "$OWN_UV"; do
        ! "$uv" --version >/dev/null 2>&1 || return 0
    done
    python=$(python_for_uv) || fail "no uv, and no Python with the module venv to install it: install one of the two" \
        "(Debian and Ubuntu: sudo apt-get install python3-venv; macOS: brew install uv) and run make setup again"
    echo "setup: installing uv into .cache/uv"
    mkdir -p .cache
    awk '/^[^ ]/ { chosen = /^uv==/ } chosen' requirements/dev.txt >.cache/uv.txt
    if ! "$python" -m venv --clear .cache/uv || ! .cache/uv/bin/python -m pip --disable-pip-version-check install \
        --quiet --require-hashes -r .cache/uv.txt; then
        fail "pip could not install uv (see its output above)"
    fi
}

# Print the command that installs a Python on this machine, for a user whose uv could not download one.
python_command() {
    for minor in 13 12 11; do
        if apt-cache show "python3.$minor" >/dev/null 2>&1; then
            echo "sudo apt-get install python3.$minor && make setup"
            return
        fi
    done
    if command -v brew >/dev/null; then
        echo "brew install python@3.13 && make setup"
    elif command -v pyenv >/dev/null; then
        echo "pyenv install 3.13 && make setup PYTHON=\"\$(pyenv prefix 3.13)/bin/python\""
    else
        echo "make setup PYTHON=/path/to/python3.13, once it is installed"
    fi
}

make_venv() {
    echo "setup: making .venv"
    rm -rf .venv
    "$uv" venv --quiet --no-project --prompt nightjar --python "${PYTHON:->=3.11,<3.14}" .venv && return
    case ${UV_PYTHON_DOWNLOADS:-automatic} in
        automatic) cause="uv could not download one (see its output above)" command=$(python_command) ;;
        *) cause="UV_PYTHON_DOWNLOADS forbids a download by uv" command="UV_PYTHON_DOWNLOADS=automatic make setup" ;;
    esac
    fail "no Python $VERSIONS in PATH, and $cause. Type: $command"
}

check_python
# A linked environment belongs to another folder, which sets it up.
if [ -L .venv ]; then
    is_ready || fail ".venv is a link to an environment that does not fit: remove the link"
    exit
fi
find_uv
is_ready || make_venv
exec .venv/bin/python -m infra.setup "$uv"
