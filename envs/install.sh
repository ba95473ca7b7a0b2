#!/usr/bin/env bash
# Installs locked packages into a virtual environment: install.sh VENV LOCK...
# A lock is complete, so pip resolves nothing (--no-deps), and it takes no file whose hash is not in the lock.
set -euo pipefail
venv=$1
shift
envs=$(dirname "$0")
install() { "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes -r "$1"; }

for lock in "$@"; do
  # Of two builds of a version, pip prefers the index's; where it finds the CPU build, in a folder of wheels say, that will do.
  if [[ $lock != *-cuda.lock ]] && grep -q '^torch==' "$lock"; then install "$envs/torch-cpu.lock" 2>/dev/null || true; fi
  install "$lock"
done
# The index's build of torch does not load without NVIDIA's libraries.
if "$venv/bin/pip" show --quiet torch 2>/dev/null && ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
  install "$envs/torch-cuda.lock"
fi
