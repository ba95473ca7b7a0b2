#!/bin/sh
# Part of every image's %test: nothing of the machine that built it is left, everyone may read it, and the interpreter for
# model-written code has its packages.
set -eu
fail() { echo "error: $1" >&2; exit 1; }

for file in /etc/pip.conf /etc/xdg/pip/pip.conf /opt/*/pip.conf \
  /etc/apt/sources.list /etc/apt/sources.list.d/* /etc/apt/apt.conf.d/*proxy*; do
  [ ! -e "$file" ] || fail "$file was left in the image"
done
for file in /.singularity.d/env/*.sh; do
  ! grep -qiE '(pip|uv)_[a-z_]*=|proxy=' "$file" || fail "$file sets a package index or a proxy"
done
closed=$(find /opt/score /opt/sandbox ! -type l ! -perm -o=r -print -quit)
[ -z "$closed" ] || fail "not everyone may read $closed"
[ "$LC_ALL" = C.UTF-8 ] || fail "the locale is not UTF-8"
"$SCORE_SANDBOX_PYTHON" -c 'import numpy, scipy, sympy'
