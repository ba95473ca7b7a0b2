#!/usr/bin/env bash
# Takes down what start.sh started: `stop.sh [FOLDER]`. Its jobs are cancelled, its daemons ended, its files removed, its logs kept.
# Only processes of this FOLDER are touched. `stop.sh --list [FOLDER]` only prints the daemons that run ("PID NAME").
set -euo pipefail
list=
if [ "${1:-}" = --list ]; then list=yes; shift; fi
folder=$(realpath -m "${1:-${SCORE_CLUSTER:-/tmp/score-cluster}}")
export SLURM_CONF="$folder/slurm.conf"

# "PID NAME" of each daemon: the pid file's process counts only if its command line names this folder (a pid may have been given anew).
daemons() {
  local name pid
  for name in "$@"; do
    pid=$(cat "$folder/run/$name.pid" 2>/dev/null) || continue
    if grep -qaF "$folder/" "/proc/$pid/cmdline" 2>/dev/null; then echo "$pid $name"; fi
  done
}

# What else of this cluster is there: daemons that lost their pid file, and the processes of jobs with the slurmstepd above them. All carry
# the cluster's SLURM_CONF; a person's shell does too, but it has no job number.
others() {
  local environ process
  { grep -slzxF "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ || true; } | while read -r environ; do
    process=${environ%/environ}
    case $(readlink "$process/exe") in
      */slurmctld* | */slurmd* | */slurmstepd*) ;; # Debian's are slurmstepd-wlm and so on
      *) grep -qz '^SLURM_JOB_ID=' "$process/environ" 2>/dev/null || continue ;;
    esac
    echo "${process#/proc/} $(cat "$process/comm" 2>/dev/null)"
  done
}

# end SECONDS COMMAND...: TERM what COMMAND lists, KILL what is left after SECONDS.
end() {
  local until=$((SECONDS + $1)) pids
  shift
  pids=$("$@" | cut -d' ' -f1)
  [ -n "$pids" ] || return 0
  # shellcheck disable=SC2086  # several numbers
  kill -TERM $pids 2>/dev/null || true
  while [ "$SECONDS" -lt "$until" ]; do
    [ -n "$("$@")" ] || return 0
    sleep 0.2
  done
  pids=$("$@" | cut -d' ' -f1)
  # shellcheck disable=SC2086
  [ -z "$pids" ] || kill -KILL $pids 2>/dev/null || true
  sleep 0.5
}

if [ -n "$list" ]; then
  daemons slurmctld slurmd munged
  exit 0
fi
[ -e "$folder/slurm.conf" ] || { echo "no cluster in $folder"; exit 0; }
if [ -n "$(daemons slurmctld)" ] && [ -n "$(daemons slurmd)" ]; then
  # Cancelled while slurmd lives, jobs end as they would on a cluster: TERM, KillWait, KILL.
  timeout 20 squeue -h -o %A 2>/dev/null | sort -u | timeout 20 xargs -r scancel 2>/dev/null || true
  for _ in $(seq 40); do
    [ -n "$(timeout 10 squeue -h -o %A 2>/dev/null)" ] || break
    sleep 0.5
  done
fi
end 10 daemons slurmctld
end 10 daemons slurmd
end 5 others
end 5 daemons munged

left=$(daemons slurmctld slurmd munged; others)
[ -z "$left" ] || { echo "error: these processes of $folder are still there: $(echo "$left" | tr '\n' ' ')" >&2; exit 1; }
rm -rf "${folder:?}"/{bin,munge,spool,state,run,slurm.conf,gres.conf,env.sh}
echo "the cluster in $folder is down; its logs are in $folder/log"
