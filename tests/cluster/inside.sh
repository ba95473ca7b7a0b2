#!/usr/bin/env bash
# What `make cluster-test`, `make cluster-demo` and `make cluster-smoke` run on the test cluster, once it is up: images first.
set -euo pipefail
export SCORE_SITE=$PWD/tests/cluster/site.yaml
bash tests/cluster/images.sh
polling=(--slurm-init-seconds-before-status-checks 5 --seconds-between-status-checks 3 --latency-wait 15)
case $1 in
  test) exec python -m pytest -m slurm ;;
  smoke)
    # SCORE_SMOKE: more words for Snakemake, such as a mirror of the published files; quoted as in a shell.
    eval "words=(${SCORE_SMOKE:-})"
    export SCORE_SMOKE_HOST=127.0.0.1 # this is the only node
    export SCORE_SERVE="apptainer exec --home $PWD $PWD/containers/serve.sif"
    time bash envs/smoke.sh --profile slurm "${polling[@]}" "${words[@]}"
    ;;
  demo)
    time snakemake --profile slurm --configfile configs/micro.yaml "${polling[@]}"
    ;;
  *) echo "usage: $0 test|demo|smoke" >&2; exit 2 ;;
esac
