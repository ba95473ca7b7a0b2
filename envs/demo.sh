#!/usr/bin/env bash
# `make demo` (one seed) and `make demo-full` (`demo.sh --full`: three seeds, both kinds of demonstrations, the long world):
# the micro-world's workflow, then its headline tables. Run again after a kill, it continues.
set -euo pipefail
full=false
[ "${1:-}" = --full ] && { full=true; shift; }

run() { snakemake --profile demo "$@"; }

if $full; then
  echo "The full micro-world demo: three seeds, demonstrations with and without leaps, and the long world."
  echo "Estimate: just under two hours on two cores the first time; what is finished is not repeated."
  run --config 'seeds=[0,1,2]' "$@"
  run --configfile configs/micro.yaml configs/micro_leap0.yaml --config 'seeds=[0,1,2]' "$@"
  run all theory --configfile configs/micro.yaml configs/micro_long.yaml --config 'seeds=[0,1,2]' "$@"
  experiments=(micro micro_leap0 micro_long)
else
  echo "The micro-world demo: one seed, all agents."
  echo "Estimate: 15 to 20 minutes on two cores the first time; what is finished is not repeated."
  run "$@"
  experiments=(micro)
fi

for experiment in "${experiments[@]}"; do
  echo
  cat "results/$experiment/tables/headline.md"
done
cat <<TXT

Report:        results/${experiments[0]}/report/index.html, all of them on one page
Tables:        results/${experiments[0]}/tables/table{1,2,3}.{md,csv,tex}
Figures:       results/${experiments[0]}/figures/*.{png,pdf}, each with its numbers in .md and .csv
Trajectories:  results/${experiments[0]}/eval/<agent>/<seed>/<benchmark>.jsonl   corrections: results/${experiments[0]}/correct/bc20-s0/
Models, logs:  results/${experiments[0]}/train/<agent>-s0/, results/${experiments[0]}/logs/
TXT
