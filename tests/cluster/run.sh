#!/usr/bin/env bash
# Runs a command on a test cluster that lives as long as the command: `run.sh COMMAND...`. Its exit code is the command's, or
# 77 where this machine cannot run a cluster (one line says why): a skipped run is no success, and CI can tell it from a failure.
# SCORE_CLUSTER names the cluster's folder; without it there is a fresh one, so that a cluster which already runs is left in peace.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
disk=${SCORE_CLUSTER_DISK:-25} memory=${SCORE_CLUSTER_MEMORY:-6} # GB that have to be free
skip() { echo "cluster tests skipped: $1"; exit 77; }

[ $# -gt 0 ] || { echo "usage: $0 COMMAND [ARGUMENT...]" >&2; exit 2; }
[ "$(id -u)" = 0 ] || skip "they need root (sudo make cluster-test)"
{ grep -qsE '^ID(_LIKE)?=.*debian' /etc/os-release && command -v apt-get >/dev/null; } \
  || skip "SLURM and Apptainer come from Debian's packages, and this is no Debian"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || skip "there is no python3 of version 3.11 or newer"
[ -c /dev/fuse ] || skip "there is no /dev/fuse (modprobe fuse, or give the container that device)"
unshare --user --map-root-user true 2>/dev/null \
  || skip "the kernel gives no user namespaces, which Apptainer needs (sysctl user.max_user_namespaces)"
for folder in "$root" /tmp; do
  free=$(df --output=avail -BG "$folder" | tail -n 1 | tr -dc 0-9)
  [ "$free" -ge "$disk" ] || skip "$folder has $free GB free of the $disk that images and results may take"
done
free=$(awk '/^MemAvailable/ {print int($2 / 1024 / 1024)}' /proc/meminfo)
[ "$free" -ge "$memory" ] || skip "$free GB of memory are free, $memory are needed"

bash "$here/install.sh"
fresh='' started='' child='' code=1
folder=${SCORE_CLUSTER:-}
[ -n "$folder" ] || { folder=$(mktemp -d /tmp/score-cluster.XXXXXX); fresh=yes; }
finish() {
  trap '' INT TERM HUP
  if [ -n "$child" ]; then # INT, as from a keyboard: on it Snakemake cancels its jobs, on TERM it would wait for them
    kill -INT -- "-$child" 2>/dev/null || true
    timeout 30 tail --pid="$child" -f /dev/null || true
    kill -KILL -- "-$child" 2>/dev/null || true
    wait "$child" 2>/dev/null || true
  fi
  # A cluster that ran before made start.sh fail: it is not ours to stop.
  if [ -n "$fresh$started" ]; then bash "$here/stop.sh" "$folder" || code=1; fi
  if [ "$code" = 0 ] && [ -n "$fresh" ]; then rm -rf "${folder:?}"; fi
  exit "$code"
}
trap finish EXIT
trap 'code=130; exit' INT
trap 'code=143; exit' TERM HUP
bash "$here/start.sh" "$folder"
started=yes
# shellcheck disable=SC1091  # written by start.sh
. "$folder/env.sh"
# In the background and a group of its own: a shell that waits in the foreground hears a signal only when the command is over.
# It hears INT even if this script was itself started in the background, where shells ignore it.
set -m
env --default-signal=INT SCORE_CLUSTER_REQUIRED=1 "$@" </dev/null &
child=$!
set +m
code=0
wait "$child" || code=$?
child=''
[ "$code" != 77 ] || code=1 # skipped is what this machine cannot do; a command that says 77 has failed
