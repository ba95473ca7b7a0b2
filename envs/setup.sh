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
echo "Installing pinned packages into $venv (once) ..."
bash "$(dirname "$0")/install.sh" "$venv" "$@"
"$venv/bin/pip" check >/dev/null || missing "$("$venv/bin/pip" check)"
echo "Done."
