#!/usr/bin/env bash
# `make smoke`: serves SmolLM2 for all jobs, runs configs/smoke.yaml on it, and ends the server. Words go to Snakemake
# (`envs/smoke.sh --profile slurm`). Jobs on other nodes need SCORE_SMOKE_HOST=0.0.0.0 and a key in SCORE_SMOKE_KEY.
# SCORE_SERVE: what stands before the server's command, such as `apptainer exec ...`. Run again after a kill, it continues.
set -euo pipefail
overlay=results/smoke_server.yaml log=results/smoke_server.log
[ "${1:-}" = --profile ] || set -- --profile local "$@"

echo "The smoke run: a small real model through every rule of the paper's experiment."
echo "Estimate: half an hour to an hour on two cores the first time; what is finished is not repeated."

server='' workflow=''
finish() {
  trap '' INT TERM HUP
  if [ -n "$workflow" ]; then # INT: on it Snakemake ends its jobs
    kill -INT -- "-$workflow" 2>/dev/null || true
    wait "$workflow" 2>/dev/null || true
  fi
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  wait || true
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
set -m # groups of their own, which hear INT although they run in the background
in_turn() { # a command to its end, while signals are heard
  env --default-signal=INT "$@" </dev/null &
  workflow=$!
  wait "$workflow"
  workflow=''
}

in_turn snakemake "$@" --configfile configs/smoke.yaml --until smollm2
rm -f "$overlay" # of an earlier server
read -ra prefix <<<"${SCORE_SERVE:-}"
"${prefix[@]}" python -m score serve --config config.yaml configs/smoke.yaml --model smollm2_server \
  --host "${SCORE_SMOKE_HOST:-127.0.0.1}" --port "${SCORE_SMOKE_PORT:-8211}" --overlay "$overlay" >"$log" 2>&1 </dev/null &
server=$!
until [ -e "$overlay" ]; do
  kill -0 "$server" 2>/dev/null || { echo "error: the server did not start; the last of $log:"; tail -n 5 "$log"; exit 1; } >&2
  sleep 2
done
in_turn snakemake "$@" --configfile configs/smoke.yaml "$overlay"
