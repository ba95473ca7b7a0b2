#!/usr/bin/env bash
# Installs what the test cluster needs: SLURM, munge, Apptainer and a user who builds images. What is there already is left as it is.
# A second run changes nothing. Needs root on Debian and the packages of its own apt configuration; nothing else is downloaded.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
builder=score-build                 # images are built by an ordinary user: root's %post fails where root lacks CAP_SYS_RESOURCE
glibc=/opt/score-glibc              # the C library of unstable, for Apptainer alone, where the system's own is too old
packages=(slurm-wlm munge squashfs-tools squashfuse fuse-overlayfs uidmap containernetworking-plugins debootstrap)
export DEBIAN_FRONTEND=noninteractive
fail() { echo "error: $1" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "installing needs root (run it with sudo)"
command -v apt-get >/dev/null || fail "this is no Debian: install SLURM and Apptainer with your own package manager"
work=$(mktemp -d /tmp/score-install.XXXXXX)
policy=/usr/sbin/policy-rc.d mine=
trap 'rm -rf "$work"; [ -z "$mine" ] || rm -f "$policy"' EXIT

installed() { dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed; }

# Packages from the machine's own apt; their daemons stay off (policy-rc.d), because start.sh runs its own in its own folder.
install_packages() {
  local missing=() name
  for name in "$@"; do installed "$name" || missing+=("$name"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  echo "installing ${missing[*]}"
  if [ ! -e "$policy" ]; then
    mine=yes
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
  fi
  timeout 300 apt-get update -qq || fail "apt-get update failed: look at the sources in /etc/apt"
  timeout 900 apt-get install -y -qq -o DPkg::Lock::Timeout=120 --no-install-recommends "${missing[@]}" >"$work/apt.log" 2>&1 \
    || { tail -n 5 "$work/apt.log" >&2; fail "apt-get could not install: ${missing[*]}"; }
}

# Apptainer is in unstable alone. Its source, lists and cache are a folder of their own, so the system's apt never hears of unstable.
install_apptainer() {
  local apt="$work/unstable" key=/usr/share/keyrings/debian-archive-keyring.gpg mirror options
  mirror=$(bash "$here/mirror.sh")
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/debs"
  echo "deb [signed-by=$key] $mirror unstable main" >"$apt/sources.list"
  options=(-qq -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::Lists=$apt/lists"
    -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root)
  timeout 300 apt-get "${options[@]}" update || fail "the mirror has no Debian unstable: $mirror"
  (cd "$apt/debs" && timeout 300 apt-get "${options[@]}" download apptainer) || fail "Debian unstable has no apptainer for this machine"
  if apt-get install -qq --simulate --no-install-recommends "$apt"/debs/apptainer_*.deb >/dev/null 2>&1; then
    timeout 600 apt-get install -y -qq --no-install-recommends "$apt"/debs/apptainer_*.deb >/dev/null
  else
    (cd "$apt/debs" && timeout 300 apt-get "${options[@]}" download libc6 libseccomp2 libsqlite3-0) || fail "unstable's libc6 cannot be had"
    unpack_apptainer "$apt/debs"
  fi
}

# The system's libc is too old for the package (Debian 12): unpack it, give it a C library of its own and leave the system's untouched.
unpack_apptainer() {
  local debs=$1 name loader libs binary
  install_packages patchelf
  rm -rf "$glibc" && mkdir -p "$glibc" "$work/root"
  for name in libc6 libseccomp2 libsqlite3-0; do dpkg-deb -x "$debs/$name"_*.deb "$glibc"; done
  libs=$(dirname "$(find "$glibc" -name libc.so.6)")
  loader=$(find "$libs" -name 'ld-linux*.so.*' | sed -n 1p)
  dpkg-deb -x "$debs"/apptainer_*.deb "$work/root"
  for name in libseccomp.so.2 libsqlite3.so.0; do patchelf --force-rpath --set-rpath "$libs" "$(readlink -f "$libs/$name")"; done
  while read -r binary; do
    patchelf --set-interpreter "$loader" --force-rpath --set-rpath "$libs" "$binary"
  done < <(find "$work/root/usr" -type f \( -path '*/bin/apptainer' -o -path '*/apptainer/bin/starter' \))
  # tar removes a file before it writes the new one: a running container keeps the file that it has open.
  cd "$work/root"
  find . -type d -exec mkdir -p /{} \;
  find . ! -type d -print0 | tar --null -cf - -T - | tar xf - -C /
  cd "$here"
}

# An ordinary user with ranges of user and group ids that Apptainer maps to the image's users.
make_builder() {
  local file start
  touch /etc/subuid /etc/subgid
  id "$builder" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$builder"
  for file in /etc/subuid /etc/subgid; do
    grep -q "^$builder:" "$file" && continue
    start=$(awk -F: 'BEGIN {m = 100000} $2 + $3 > m {m = $2 + $3} END {print m}' "$file")
    echo "$builder:$start:65536" >>"$file"
  done
}

install_packages "${packages[@]}"
command -v apptainer >/dev/null || install_apptainer
apptainer --version >/dev/null || fail "apptainer does not start: remove /usr/bin/apptainer and $glibc, then run this again"
make_builder
[ -c /dev/fuse ] || fail "there is no /dev/fuse: load the module (modprobe fuse) or give the container that device"
chmod 666 /dev/fuse                 # a container is mounted by the user who runs it
echo "$(slurmctld -V), $(apptainer --version), user $builder"
