#!/usr/bin/env bash
# Resolves envs/*.in anew into envs/*.lock, every file with its hashes: lock.sh BIN, where BIN has pip, pip-compile and uv.
# Versions that are in a lock stay as long as its .in file allows them; to move one, delete its line from the lock first.
set -euo pipefail
bin=$1
cd "$(dirname "$0")"
missing() { echo "error: $1" >&2; exit 1; }

# core, train, dev and sandbox are for the machine at hand and its Python: pip resolves them, with its own configuration.
here() {
  local name=$1
  shift
  "$bin/pip-compile" --quiet --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
    --no-header --annotation-style=line "$@" --output-file="$name.lock" "$name.in"
}

# The rest is for an image and its Python, which need not be here: uv resolves it from the packages' metadata and downloads
# none of them. A version that core or train has is preferred, then the one that the lock has.
image() {
  local name=$1 python=$2
  shift 2
  touch "$name.lock"
  awk '/^[a-z0-9]/ { split($1, pin, "=="); if (!(pin[1] in seen)) { seen[pin[1]]; print $1 } }' \
    core.lock train.lock "$name.lock" >"$name.pins"
  mv "$name.pins" "$name.lock"
  "$bin/uv" pip compile --quiet --no-config --generate-hashes --python-version "$python" --python-platform x86_64-manylinux_2_28 \
    --no-header --annotation-style=line "$@" --output-file="$name.lock" "$name.in"
}

# A lock with torch takes either build of it, the CPU one or the index's.
take_cpu_off() {
  grep -q '^torch==[0-9.]*+cpu' "$1.lock" || missing "pip finds no CPU build of torch for $1.in (name a folder: PIP_FIND_LINKS)"
  sed -i '/^torch==/s/+cpu//' "$1.lock"
}
add_cuda_hashes() {
  sed -n '/^torch==/,/^ *#/s/^\( *--hash=[^ ]*\).*/\1 \\/p' torch-cuda.lock >torch.hashes
  sed -i '/^torch==/r torch.hashes' "$1.lock"
  rm torch.hashes
}

wheels=${PIP_FIND_LINKS:-$("$bin/pip" config get global.find-links 2>/dev/null || true)}
here core
sed -i '/^torch==/,/^ *#/d' train.lock # a pin without +cpu would bring the other build
here train --allow-unsafe              # torch needs setuptools
sed -n '/^torch==.*+cpu/,/^ *#/p' train.lock >torch-cpu.lock
take_cpu_off train
image torch-cuda 3.12
add_cuda_hashes train
here dev
sed -i '/^# WARNING/,$d' dev.lock # pip and setuptools are in the environment already
here sandbox
image serve 3.11 ${wheels:+--find-links "$wheels"} --no-emit-package torchvision --no-emit-package torchaudio \
  --no-emit-package torchcodec --no-emit-package triton
take_cpu_off serve
add_cuda_hashes serve
image serve-cuda 3.12
image train-cuda 3.12
