#!/usr/bin/env bash
# `make smoke`: serves SmolLM2 for all jobs, runs configs/smoke.yaml on it, and ends the server. Words go to Snakemake
# (`envs/smoke.sh --profile slurm`, docs/SMOKE.md). Run again after a kill, it continues. From the environment:
#   SCORE_SERVE         what stands before the server's command, such as `apptainer exec ...`
#   SCORE_SMOKE_HOST    0.0.0.0 for jobs on other nodes, which also takes a key of your choice in SCORE_SMOKE_KEY
#   SCORE_SMOKE_CONFIG  further overlays, such as configs/smoke_gpu.yaml
set -euo pipefail
overlay=results/smoke_server.yaml log=results/smoke_server.log
[ "${1:-}" = --profile ] || set -- --profile local "$@"
read -ra prefix <<<"${SCORE_SERVE:-}"
read -ra configs <<<"configs/smoke.yaml ${SCORE_SMOKE_CONFIG:-}"
fail() { echo "error: $1" >&2; exit 1; }

command -v snakemake >/dev/null || fail 'there is no snakemake; export PATH=$PWD/.venv/bin:$PATH PYTHONPATH=$PWD/src'
[[ "${2:-}" != slurm || -n "${SCORE_SMOKE_HOST:-}" ]] \
  || fail "jobs on other nodes cannot reach 127.0.0.1; set SCORE_SMOKE_HOST=0.0.0.0 and a key, or 127.0.0.1 where this is the only node"
mkdir -p results
exec 9>results/.smoke.lock
flock -n 9 || fail "another smoke run is going on in this folder; wait for it, or end it"

echo "The smoke run: a small real model through every rule of the paper's experiment."
echo "Estimate: twenty minutes to an hour on two cores the first time; what is finished is not repeated."

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
set -m # groups of their own

# A command to its end, while signals are heard and the server is looked at. It hears INT even if this script does not.
in_turn() {
  local code=0
  python -c 'import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])' \
    "$@" </dev/null &
  workflow=$!
  wait -n "$workflow" ${server:+"$server"} || code=$?
  [ -z "$server" ] || kill -0 "$server" 2>/dev/null || server_lines "the server has ended; what is done is kept, start again"
  workflow=''
  [ "$code" = 0 ] || exit "$code"
}
server_lines() {
  echo "error: $1; the last of $log:" >&2
  tail -n 5 "$log" >&2
  exit 1
}

in_turn snakemake "$@" --configfile "${configs[@]}" --until smollm2
rm -f "$overlay" # of an earlier server
"${prefix[@]}" python -m score serve --config config.yaml "${configs[@]}" --model smollm2_server --while $$ \
  --host "${SCORE_SMOKE_HOST:-127.0.0.1}" --overlay "$overlay" >"$log" 2>&1 </dev/null 9>&- &
server=$!
until [ -e "$overlay" ]; do
  kill -0 "$server" 2>/dev/null || server_lines "the server did not start"
  sleep 2
done
in_turn snakemake "$@" --configfile "${configs[@]}" "$overlay"
table=results/smoke/tables/headline.md
[ ! -e "$table" ] || { echo; cat "$table"; echo; echo "All tables and figures: results/smoke/report/index.html"; }
