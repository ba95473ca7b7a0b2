#!/usr/bin/env bash
# Makes the virtual environment: setup.sh PYTHON VENV LOCK... ; names what is missing in one line.
set -euo pipefail
python=$1 venv=$2
shift 2
missing() { echo "error: $1" >&2; exit 1; }
for tool in git make; do
  command -v "$tool" >/dev/null || missing "$tool is not installed (Debian/Ubuntu: apt install $tool)"
done
command -v "$python" >/dev/null || missing "$python is not installed (Debian/Ubuntu: apt install python3)"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
  || missing "$("$python" --version) is too old; Python 3.11 or newer is needed (name it with: make PYTHON=python3.12)"
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing "$python has no venv (Debian/Ubuntu: apt install python3-venv)"

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
install() { "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes "$@"; }
requirements=()
for lock in "$@"; do requirements+=(-r "$lock"); done
echo "Installing pinned packages into $venv (once) ..."
install "${requirements[@]}"
# Where pip took the CUDA build of torch, it does not load without NVIDIA's libraries.
if "$venv/bin/pip" --quiet show torch >/dev/null 2>&1 && ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
  install -r "$(dirname "$0")/torch-cuda.lock"
fi
"$venv/bin/pip" check >/dev/null || missing "$("$venv/bin/pip" check)"
echo "Done."
