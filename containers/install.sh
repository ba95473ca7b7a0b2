#!/usr/bin/env bash
# Runs in an image's %post: install.sh LOCK... puts the locked packages into /opt/score, and those of model-written code into
# /opt/sandbox. What is there already stays. PACKAGES names Debian packages that the image needs besides Python.
set -euo pipefail
umask 022
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 HOME=/opt/build # not the builder's own home, which is bound
locks=/opt/build/envs

# What the building machine needs to reach its packages (a certificate, a proxy, a folder of wheels); bound, never kept.
if [ -f /mnt/site.sh ]; then . /mnt/site.sh; fi

# Python comes with the base, or from its own packages.
packages=(${PACKAGES:-})
python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3 python3-venv ca-certificates)
if [ ${#packages[@]} -gt 0 ]; then
  if [ -n "${MIRROR:-}" ] && [ ! -e /etc/apt/sources.list ]; then echo "deb $MIRROR bookworm main" >/etc/apt/sources.list; fi
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'

[ -x /opt/sandbox/bin/python ] || python3 -m venv /opt/sandbox
[ -x /opt/score/bin/python ] || python3 -m venv /opt/score
export PIP_NO_CACHE_DIR=1
bash "$locks/install.sh" /opt/sandbox "$locks/sandbox.lock"
bash "$locks/install.sh" /opt/score "${@/#/$locks/}"

install -D -m 755 /opt/build/check.sh /opt/check.sh
chmod -R a+rX /opt/score /opt/sandbox
apt-get clean
# Only what is the image's own: /tmp, /var/tmp and the home folder are those of the machine that builds it.
rm -rf /opt/build /var/lib/apt/lists/* /var/cache/apt/*.bin /etc/apt/sources.list /etc/apt/sources.list.d/*
