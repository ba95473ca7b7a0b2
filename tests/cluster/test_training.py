"""Training on several GPUs and nodes, as a cluster's admins and its GPUs' memory see it."""

import json
import subprocess

import pytest

from cluster.fake_slurm import ROOT, FakeSlurm, config_of, profile_of, replace_partitions, says
from score.cluster import checks, jobs, places, slurm
from train.test_memory import QWEN_3B

TWO_NODES = {"training": {"sft": {"score_sft": {"gpus": 8, "nodes": 2}}}}


def test_several_nodes_are_asked_for_as_such():
    config = config_of(TWO_NODES)
    here = replace_partitions({"gpu": {"max_gpu": 16, "max_nodes": 2}})
    needs = [need for need in jobs.needs(config, profile_of(), here) if need.nodes == 2]
    assert {(need.rule, need.gpus) for need in needs} == {("sft", 16)}
    assert "16 GPUs, 2 nodes" in str(needs[0])
    ask = FakeSlurm()
    known = slurm.partitions(ask)
    says(checks.fit(needs, here, known, (), ask)[0], True, "sft in gpu")
    assert all({"--nodes=2", "--ntasks=2", "--gpus=16"} <= set(call) for call in ask.calls if call[0] == "sbatch")
    assert checks.partition("gpu", here, known).ok
    small = replace_partitions({"gpu": {"max_gpu": 16, "max_nodes": 1}})
    says(checks.fit(needs, small, known, (), ask)[0], False, "fits no partition")
    says(checks.partition("gpu", small, known), False, "max_gpu: 8 (a job runs on one node)")


@pytest.mark.parametrize("nodes", [1, 2])
def test_the_rules_ask_for_them(nodes, tmp_path):
    """Only several nodes make an MPI job of it, which runs outside of the image that its steps start."""
    (tmp_path / "many.yaml").write_text(f"training: {{sft: {{cold_start: {{gpus: 4, nodes: {nodes}}}}}}}")
    command = ["snakemake", "--profile", "slurm", "-n", "--configfile", str(tmp_path / "many.yaml"), "--config"]
    command += ["experiment=unbuilt", "--", "results/unbuilt/train/qwen7b_bc-s0/log.csv"]
    planned = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert planned.returncode == 0, planned.stdout + planned.stderr
    job = planned.stdout.split("rule sft:")[1].split("\n\n")[0]
    assert f"gpu={4 * nodes}" in job
    assert f"nodes={nodes}" in job
    assert ("mpi=srun" in job, "tasks=2" in job, "tasks_per_gpu=0" in job) == (nodes == 2,) * 3


@pytest.fixture
def folder(tmp_path):
    """A model of 3 B parameters, by its config.json."""
    (tmp_path / "model.safetensors").write_bytes(b"x")
    (tmp_path / "config.json").write_text(json.dumps(QWEN_3B))
    return tmp_path


def look(folder, room, **settings):
    changed = {"models": {"qwen2.5_3b": {"path": str(folder)}}, "training": {"sft": {"cold_start": settings}}}
    return places.training(config_of(changed), "qwen3b_bc", folder / "hub", room)


def test_a_training_that_does_not_fit_names_the_mend(folder):
    tight = look(folder, 48)
    says(tight, False, "training qwen3b_bc", "about", "which has 48", "training.sft.cold_start: lower micro_batch")
    says(look(folder, 80), True, "of 80")
    says(look(folder, 48, gpus=4), True)
    says(look(folder, 48, lora={"r": 16}), True)


def test_where_memory_or_model_are_unknown_nothing_is_claimed(folder):
    says(look(folder, None), None, "GB on each GPU", "site.yaml names no gpu_memory_gb")
    says(look(folder / "elsewhere", 80), None, "known once it is downloaded")
    (folder / "config.json").write_text('{"model_type": "mamba2"}')
    says(look(folder, 80), None, "no decoder of a kind that can be estimated (llama, mistral, qwen2, qwen3)")


def test_each_model_and_settings_is_looked_at_once():
    assert jobs.trained_on_gpus(config_of("configs/micro.yaml")) == [], "no GPUs, no memory to fit into"
    seven = [name for name in jobs.trained_on_gpus(config_of()) if "qwen7b" in name or "ablation" in name]
    assert seven == ["qwen7b_bc", "qwen7b_grpo", "qwen7b_score_sft", "qwen7b_dpo"]
