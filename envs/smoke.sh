#!/usr/bin/env bash
# `make smoke`, and on a cluster `envs/smoke.sh --profile slurm`: serves SmolLM2 for all jobs, runs configs/smoke.yaml on it, and
# ends the server. Words go to Snakemake. SCORE_SERVE: what stands before the server's command, such as `apptainer exec ...`.
# Run again after a kill, it continues.
set -euo pipefail
overlay=results/smoke_server.yaml log=results/smoke_server.log
[ "${1:-}" = --profile ] || set -- --profile local "$@"

echo "The smoke run: a small real model through every rule of the paper's experiment."
echo "Estimate: an hour to an hour and a half on two cores the first time; what is finished is not repeated."
snakemake "$@" --configfile configs/smoke.yaml --until smollm2
read -ra prefix <<<"${SCORE_SERVE:-}"
"${prefix[@]}" python -m score serve --config config.yaml configs/smoke.yaml --model smollm2_server --port "${SCORE_SMOKE_PORT:-8211}" \
  --overlay "$overlay" >"$log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null || true' EXIT
until [ -e "$overlay" ]; do
  kill -0 "$server" 2>/dev/null || { echo "error: the server did not start; the last of $log:"; tail -n 5 "$log"; exit 1; } >&2
  sleep 2
done
snakemake "$@" --configfile configs/smoke.yaml "$overlay"
