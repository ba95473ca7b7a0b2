#!/usr/bin/env bash
# What `make cluster-test` and `make cluster-demo` run on the test cluster, once it is up: images first.
set -euo pipefail
export SCORE_SITE=$PWD/tests/cluster/site.yaml
bash tests/cluster/images.sh
case $1 in
  test) exec python -m pytest -m slurm ;;
  demo)
    polling=(--slurm-init-seconds-before-status-checks 5 --seconds-between-status-checks 3 --latency-wait 15)
    time snakemake --profile slurm --configfile configs/micro.yaml "${polling[@]}"
    ;;
  *) echo "usage: $0 test|demo" >&2; exit 2 ;;
esac
