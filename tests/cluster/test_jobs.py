"""Which jobs a config sends, and whether each has a place in SLURM."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from cluster.fake_slurm import ROOT, FakeSlurm, config_of, profile_of, replace_partitions, says, site_of
from score.cluster import checks, jobs, slurm
from score.cluster.finding import Finding
from score.cluster.site import Site
from score.errors import ScoreError


def test_jobs_of_different_sizes_are_no_array():
    config = config_of()
    says(checks.arrays("rollout, evaluate", jobs.stages(config), config), False, "need 1 or 4 GPUs", "leave 'evaluate'")
    assert checks.arrays("rollout, correct", jobs.stages(config), config).ok


def fit(needs, here: Site, ask: FakeSlurm, broken=()) -> list[Finding]:
    return checks.fit(needs, here, slurm.partitions(ask), broken, ask)


def test_every_job_of_the_paper_has_a_place():
    found = fit(jobs.needs(config_of(), profile_of(), site_of()), site_of(), FakeSlurm())
    assert len(found) == 1
    says(found[0], True, "correct, dpo, evaluate, grpo, judge, rollout, sft in gpu")


def test_a_job_with_too_many_gpus_for_any_partition():
    here = replace_partitions({"gpu": {"max_gpu": 4}})
    found = {f.name: f for f in fit(jobs.needs(config_of(), profile_of(), here), here, FakeSlurm())}
    assert set(found) == {"jobs of correct"}, "the others fit"
    says(found["jobs of correct"], False, "5 GPUs", "at most 4 GPUs are given (max_gpu)")


def test_a_later_attempt_that_would_run_too_long():
    here = replace_partitions({"gpu": {"max_gpu": 8, "max_runtime": 2880}})
    found = {f.name: f for f in fit(jobs.needs(config_of(), profile_of(), here), here, FakeSlurm())}
    assert set(found) == {"jobs of correct", "jobs of grpo"}
    says(found["jobs of grpo"], False, "4320 minutes", "attempt 3", "fits no partition", "raise max_runtime")


def test_what_slurm_itself_says_of_a_job():
    ask = FakeSlurm(refuses="allocation failure: Requested node configuration is not available")
    found = fit(jobs.needs(config_of("configs/micro.yaml"), profile_of(), site_of()), site_of(), ask)
    says(found[0], False, "is not for partition cpu: sbatch: allocation failure: Requested node configuration")
    calls = [call for call in ask.calls if call[0] == "sbatch"]
    assert all("--test-only" in call for call in calls)


def test_a_partition_that_the_profile_names_itself():
    profile = profile_of(set_resources={"grpo": {"slurm_partition": "gpuu"}})
    found = {f.name: f for f in fit(jobs.needs(config_of(), profile, site_of()), site_of(), FakeSlurm())}
    says(found["jobs of grpo"], False, "no partition 'gpuu'; did you mean 'gpu'? (slurm_partition in the profile)")


def test_a_resource_that_is_no_amount():
    with pytest.raises(ScoreError, match="runtime of grpo: '12 \\* atempt' is no amount"):
        profile_of(set_resources={"grpo": {"runtime": "12 * atempt"}}).amount("grpo", "runtime", 1)


@pytest.mark.parametrize("overlays", [[], ["configs/smollm2.yaml"], ["configs/micro.yaml", "gpus.yaml"]])
def test_jobs_are_those_of_the_rules(overlays, tmp_path):
    """The rules' own resources, in a dry run of everything, against the table that the doctor works with."""
    (tmp_path / "gpus.yaml").write_text("models: {student: {gpus: 2}}")
    files = [str(tmp_path / name) if name == "gpus.yaml" else name for name in overlays]
    command = ["snakemake", "--profile", "slurm", "-n", "--forceall", *(["--configfile", *files] if files else [])]
    planned = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert planned.returncode == 0, planned.stderr[-2000:]
    rule, of_rules = "", set()
    for line in planned.stdout.splitlines():
        if match := re.match(r"(?:local)?rule (\w+):", line):
            rule = match[1]
        elif match := re.search(r"resources:.*\bgpu=(\d+)", line):
            of_rules.add((rule, int(match[1])))
    config = config_of(*(yaml.safe_load(Path(ROOT, file).read_text()) for file in files))
    assert {(stage.rule, stage.gpus(config)) for stage in jobs.stages(config)} == of_rules


def test_only_images_in_use_matter():
    prompted = {"agents": [{"name": "a", "label": "A", "model": "oracle"}], "skip": [], "fresh": []}
    assert jobs.images(config_of("configs/micro.yaml", prompted)) == ["core", "serve"]
    assert jobs.images(config_of()) == ["core", "train", "serve"]
