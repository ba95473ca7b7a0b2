"""What a dry run prints, as jobs; and the whole command on a real one."""

import subprocess
import sys

import pytest

from plan.small import ROOT
from score.errors import ScoreError
from score.plan.dryrun import Job, parse
from workflow.conftest import with_apptainer

SAID = """\
Building DAG of jobs...
Job stats:
job         count
--------  -------
evaluate        1
splits          1
total           2

[Sat Nov 28 19:05:18 2026]
rule evaluate:
    input: results/paper/data/gaia.jsonl, models/hub/Qwen/Qwen3-8B/main.json
    output: results/paper/eval/qwen3_8b/0/deep.shards/1-of-2.jsonl
    jobid: 133
    reason: Missing output files: results/paper/eval/qwen3_8b/0/deep.shards/1-of-2.jsonl
    wildcards: experiment=paper, agent=qwen3_8b, seed=0, part=deep, scatteritem=1-of-2
    resources: tmpdir=/tmp, mem_mb=64000, disk_mb=<TBD>, runtime=720, nodes=1, gpu=1, gpu_model=
    shell:
        python -m score.evaluate
[Sat Nov 28 19:05:18 2026]
localrule splits:
    output: results/paper/data/splits.json
    jobid: 3
"""


def test_jobs_are_read_with_their_wildcards_gpus_and_files():
    evaluate, splits = parse(SAID)
    assert evaluate.wildcards["scatteritem"] == "1-of-2"
    assert (evaluate.gpus, evaluate.minutes) == (1, 720)
    assert evaluate.needs[1] == "models/hub/Qwen/Qwen3-8B/main.json"
    assert str(evaluate) == "evaluate qwen3_8b deep"
    assert splits == Job("splits", makes=("results/paper/data/splits.json",))
    assert parse("Nothing to be done (all requested files are present and up to date).") == []


def test_a_dry_run_that_hides_its_jobs_is_not_taken_for_an_empty_one():
    with pytest.raises(ScoreError, match="counts 2 jobs but shows 0; leave `quiet` out"):
        parse(SAID.split("\n\n")[0])


def score_plan(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "score", "plan", "--profile", "slurm", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, env=with_apptainer())


def test_the_papers_third_table_is_estimated_from_a_real_dry_run():
    done = score_plan("table3", "--config", "experiment=unbuilt", "--set-scatter", "evaluate=2", "--gpus", "8")
    assert done.returncode == 0, done.stderr[-2000:]
    lines = {line.split()[1]: line.split() for line in done.stdout.splitlines() if line.startswith("| ")}
    assert lines["rollout"][3] == lines["correct"][3] == "1"
    assert (lines["sft"][3], lines["grpo"][3]) == ("2", "4")
    assert lines["evaluate"][3] == "12", "six agents in two shards"
    assert "wall time: " in done.stdout
    assert " with --gpus 8, " in done.stdout


def test_a_wrong_target_ends_with_snakemakes_one_line():
    done = score_plan("tabel3")
    assert done.returncode == 1
    assert done.stderr.strip() == "error: unknown target 'tabel3'; did you mean 'table3'?"
