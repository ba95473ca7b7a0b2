#!/usr/bin/env bash
# `make demo`: the micro-world's workflow, then its headline table. Run again after a kill, it continues.
set -euo pipefail
mkdir -p results .snakemake
# The lock goes with this process, even after kill -9; Snakemake's own lock files would stay behind.
exec 9>.snakemake/demo.flock
flock --nonblock 9 || { echo "error: another 'make demo' is running in this folder" >&2; exit 1; }
echo "The micro-world demo: about 10 minutes on two cores the first time; what is finished is not repeated."
snakemake --profile demo --nolock "$@" 9>&-
echo
cat results/micro/tables/headline.md
cat <<'TXT'

Tables:        results/micro/tables/table{1,2,3}.{md,csv}
Trajectories:  results/micro/eval/<agent>/<seed>/<benchmark>.jsonl   corrections: results/micro/correct/bc20-s0/
Models, logs:  results/micro/train/<agent>-s0/, results/micro/logs/
TXT
