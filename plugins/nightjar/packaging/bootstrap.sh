#!/usr/bin/env bash
# EMR bootstrap action: builds the job's Python environment on a node, before any step runs.
#
#   bootstrap.sh --package s3://lake/packages/<sha256> [--torch cpu|cuda] [--wheels s3://lake/wheelhouses/<sha256>]
#
# Without --wheels, distributions come from pip's configured index, and pip checks the hashes in the package's locks. With
# --wheels, they come only from wheels in the lake, checked against the hash in the folder's name. The node then needs
# no internet access. The environment is linked to /opt/nightjar/env once it works. So a second run does nothing, and a
# failed run leaves no environment. On failure, the last line starts with "bootstrap: FAILED".
set -Eeuo pipefail

prefix=/opt/nightjar
package="" wheels="" torch=cpu
readonly TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
readonly TORCH_CUDA_INDEX=https://download.pytorch.org/whl/cu126
readonly ATTEMPTS=3

log() { printf '%s bootstrap: %s\n' "$(date -u +%H:%M:%S)" "$*"; }
fail() {
    printf 'bootstrap: FAILED: %s\n' "$*" >&2
    exit 1
}
trap 'fail "line $LINENO: $BASH_COMMAND"' ERR

while (($#)); do
    case $1 in
        --package) package=${2:?--package needs a value} ;;
        --wheels) wheels=${2:?--wheels needs a value} ;;
        --torch) torch=${2:?--torch needs a value} ;;
        --prefix) prefix=${2:?--prefix needs a value} ;;
        *) fail "unknown argument $1" ;;
    esac
    shift 2
done
[[ -n $package ]] || fail "--package is missing"
[[ $torch == cpu || $torch == cuda ]] || fail "--torch $torch: use cpu or cuda"

as_root() { if [[ $(id -u) == 0 ]]; then "$@"; else sudo "$@"; fi; }

# retry MESSAGE COMMAND...: retry after 2 and 4 seconds, then fail with MESSAGE.
retry() {
    local message=$1 attempt
    shift
    for ((attempt = 1; attempt <= ATTEMPTS; attempt++)); do
        if "$@"; then return; fi
        log "attempt $attempt of $ATTEMPTS failed: $message"
        if ((attempt < ATTEMPTS)); then sleep $((2 ** attempt)); fi
    done
    fail "$message"
}

# fetch URI FOLDER: copy all files of a folder from S3 or a local disk.
fetch() {
    mkdir -p "$2"
    case $1 in
        s3://*) retry "cannot read $1: check the instance profile's policy and the network route to S3" \
            aws s3 cp --recursive --only-show-errors "$1/" "$2/" ;;
        file://*) cp -R "${1#file://}/." "$2/" || fail "cannot read $1" ;;
        *) fail "$1: expected s3:// or file://" ;;
    esac
}

# verify FOLDER URI: check the files against SHA256SUMS, and SHA256SUMS against the hash at the end of the URI.
verify() {
    local found
    [[ -f $1/SHA256SUMS ]] || fail "$2 has no SHA256SUMS: upload it again"
    found=$(sha256sum <"$1/SHA256SUMS")
    [[ ${found%% *} == "${2##*/}" ]] || fail "wrong hash: SHA256SUMS of $2 is ${found%% *}; upload it again"
    (cd "$1" && sha256sum --check --strict --quiet SHA256SUMS) ||
        fail "wrong hash: a file of $2 differs from SHA256SUMS; upload it again"
}

need_space() {
    local needed=3000 free
    if [[ $torch == cuda ]]; then needed=14000; fi
    free=$(df -Pm "$prefix" | awk 'NR == 2 { print $4 }')
    ((free >= needed)) || fail "disk too small: $free MB free at $prefix, $needed MB needed; raise cluster.root_volume_gb"
}

# find_python: check that the node has Python 3.11 with venv. Install the distribution's package if it has no 3.11.
find_python() {
    if ! command -v python3.11 >/dev/null && command -v dnf >/dev/null; then
        log "installing python3.11"
        retry "cannot install python3.11: choose an EMR release that includes it (cluster.release_label)" \
            as_root dnf install -y -q python3.11
    fi
    command -v python3.11 >/dev/null || fail "no python3.11 on this node: choose an EMR release that includes it"
    python3.11 -c 'import ensurepip, venv' 2>/dev/null || fail "python3.11 lacks venv: install python3.11-venv"
}

install_online() {
    local pip=("$1/bin/python" -m pip --disable-pip-version-check --no-input install --quiet --no-cache-dir)
    retry "cannot install requirements.txt from pip's index: see pip's output above; without internet, use --wheels" \
        "${pip[@]}" --require-hashes --no-deps --only-binary :all: -r "$2/requirements.txt"
    if [[ $torch == cuda ]]; then
        local checked=()
        if grep -q -- --hash= "$2/torch-cuda.txt"; then
            checked=(--require-hashes)
        else
            log "torch for CUDA has no hashes in this package, so pip checks none: run make torch-hashes"
        fi
        retry "cannot install torch with CUDA from $TORCH_CUDA_INDEX" \
            "${pip[@]}" "${checked[@]}" --extra-index-url "$TORCH_CUDA_INDEX" -r "$2/torch-cuda.txt"
        return
    fi
    local cpu=("${pip[@]}" --require-hashes --no-deps --only-binary :all: -r "$2/torch-cpu.txt")
    if ! "${cpu[@]}" 2>/dev/null; then
        log "torch for CPU is not in pip's index: installing it from $TORCH_CPU_INDEX"
        retry "cannot install torch-cpu.txt from $TORCH_CPU_INDEX: see pip's output above" \
            "${cpu[@]}" --index-url "$TORCH_CPU_INDEX"
    fi
}

install_wheels() {
    fetch "$wheels" "$2"
    verify "$2" "$wheels"
    "$1/bin/python" -m pip --disable-pip-version-check --no-input install --quiet --no-cache-dir --no-index --no-deps \
        "$2"/*.whl || fail "the wheels of $wheels cannot be installed: make them for this architecture and Python"
}

check() {
    "$1/bin/python" -m pip --disable-pip-version-check check || fail "pip check found conflicts; see its output above"
    PYTHONPATH=$2/jobs.zip "$1/bin/python" - "$torch" <<'PYTHON' || fail "the job does not import; see the error above"
import sys

import torch
from jobs.steps import generate, tokenize, train, windows

built = "cpu" if torch.version.cuda is None else "cuda"
if built != sys.argv[1]:
    sys.exit(f"torch {torch.__version__} is a build for {built}, but --torch is {sys.argv[1]}")
PYTHON
}

started=$SECONDS
sha=${package##*/}
target="$prefix/env-$sha-$torch-${wheels##*/}"
if [[ -x $target/bin/python && $(readlink "$prefix/env") == "$target" ]]; then
    log "environment $target already exists"
    exit 0
fi
log "package $package, torch $torch, $([[ -n $wheels ]] && echo "wheels $wheels" || echo "packages from pip's index")"
mkdir -p "$prefix" 2>/dev/null || as_root mkdir -p "$prefix"
[[ -w $prefix ]] || as_root chown "$(id -u)" "$prefix"
need_space
scratch=$(mktemp -d "$prefix/bootstrap.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

fetch "$package" "$scratch/package"
verify "$scratch/package" "$package"
find_python
version=$(sed -n 's/^torch==\([0-9.]*\).*/\1/p' "$scratch/package/torch.txt")
rm -rf "$target"
python3.11 -m venv "$target" || fail "cannot make a virtual environment at $target"
if [[ -n $wheels ]]; then
    install_wheels "$target" "$scratch/wheels"
else
    install_online "$target" "$scratch/package"
fi
check "$target" "$scratch/package"
chmod -R a+rX "$target"
ln -sfn "$target" "$prefix/env"
log "done in $((SECONDS - started)) s: $("$prefix/env/bin/python" --version), torch $version ($torch), $(du -sm "$target" | cut -f1) MB"
