"""How a training run is started: in how many processes, on how many nodes, and what is refused."""

import copy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from score.config import load
from score.config.load import merge
from score.errors import InfrastructureError, ScoreError
from score.train import launch, ranks
from score.train.launch import PROFILES, Layout, command, on_all_nodes

ROOT = Path(__file__).parents[2]
PAPER = yaml.safe_load((ROOT / "config.yaml").read_text())


def config(rl=None, **settings):
    """The paper's, with other settings for SFT, or for RL."""
    changed = {"training": {"sft": {"cold_start": settings}, "grpo": {"score_rl": rl or {}}}}
    return load(merge(copy.deepcopy(PAPER), changed))


def words(layout, **more):
    return command(layout, "sft", ["--agent", "bc"], python="python", **more)


def test_one_process_is_plain_python():
    layout = Layout.of(config(), "qwen7b_bc20")
    assert (layout.gpus, layout.processes, layout.total) == (1, 1, 1)
    assert words(layout) == ["python", "-m", "score.train.sft", "--agent", "bc"]
    assert (layout.mpi, layout.tasks, layout.tasks_per_gpu) == (None, None, None)


def test_several_gpus_are_as_many_processes():
    layout = Layout.of(config(gpus=8), "qwen7b_bc20")
    assert (layout.processes, layout.total, layout.sharding) == (8, 8, "fsdp2")
    line = " ".join(words(layout))
    assert f"--config_file {PROFILES / 'fsdp2.yaml'} --num_machines 1 --num_processes 8" in line
    assert line.endswith("--module score.train.sft --agent bc")


def test_the_judge_has_gpus_of_its_own():
    layout = Layout.of(config(rl={"gpus": 4}), "qwen7b_score_rl")
    assert (layout.processes, layout.total) == (4, 5)


def test_several_nodes_are_one_step_with_a_launcher_on_each():
    layout = Layout.of(config(gpus=8, nodes=2, sharding="ddp"), "qwen7b_bc20")
    assert (layout.processes, layout.total, layout.mpi, layout.tasks, layout.tasks_per_gpu) == (16, 16, "srun", 2, 0)
    step = on_all_nodes(layout, words(layout, host="n1", port=29400), ["apptainer", "exec", "train.sif"])
    line = " ".join(step)
    assert line.startswith("srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --gpus-per-node=8")
    assert "sh apptainer exec train.sif python -m accelerate.commands.launch" in line
    assert "--num_machines 2 --num_processes 16 --main_process_port 29400 --main_process_ip n1" in line


def test_what_slurm_is_asked_for_several_nodes():
    """By the plugin's own words: GPUs of all nodes, one task on each, and no tasks per GPU."""
    from snakemake_executor_plugin_slurm.submit_string import get_submit_command
    from snakemake_executor_plugin_slurm.utils import set_gres_string

    layout = Layout.of(config(gpus=8, nodes=2), "qwen7b_bc20")

    class Resources(dict):
        __getattr__ = dict.__getitem__

    asked = {name: getattr(layout, name) for name in ("nodes", "mpi", "tasks", "tasks_per_gpu")}
    job = SimpleNamespace(resources=Resources(asked, gpu=layout.total, cpus_per_task=8, runtime=10), threads=1)
    names = ("run_uuid", "slurm_logfile", "comment_str", "account", "partition", "workdir")
    line = get_submit_command(job, dict.fromkeys(names, "x")) + set_gres_string(job)
    assert "--nodes=2" in line
    assert "--ntasks=2" in line
    assert "--gpus=16" in line
    assert "ntasks-per-gpu" not in line


@pytest.mark.parametrize("name", ["ddp", "fsdp2", "zero3"])
def test_accelerate_reads_its_files(name):
    from accelerate.commands.config.config_args import load_config_from_file

    assert load_config_from_file(str(PROFILES / f"{name}.yaml")).mixed_precision == "no"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gpus": 3}, r"training\.sft\.cold_start\.batch: 128 is not a multiple of micro_batch 2 x 3 processes"),
        ({"gpus": 2, "optimizer": "muon"}, "muon needs whole matrices; sharding: ddp"),
        ({"gpus": 8, "nodes": 2, "batch": 256}, r"score_rl\.nodes: on several nodes there is no place for the reward"),
    ],
)
def test_what_cannot_be(settings, message):
    changed = {"cold_start": settings} if "nodes" not in settings else {}
    raw = {"training": {"sft": changed, "grpo": {"score_rl": settings} if not changed else {}}}
    with pytest.raises(ScoreError, match=message):
        load(merge(copy.deepcopy(PAPER), raw))


def test_where_it_trains_is_no_part_of_what_is_trained():
    from score import fingerprint

    one, many = (fingerprint.stage(c, "sft", "qwen7b_bc20") for c in (config(), config(gpus=8, sharding="ddp")))
    assert one == many


def test_the_batch_is_that_of_all_processes(monkeypatch, tmp_path):
    from score.train.optim import trainer_arguments

    settings = config().training.sft["cold_start"]
    assert trainer_arguments(settings, tmp_path, 0)["gradient_accumulation_steps"] == 64
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert trainer_arguments(settings, tmp_path, 0)["gradient_accumulation_steps"] == 16
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ScoreError, match=r"batch 128 is not a multiple of micro_batch x 3 processes \(6\)"):
        trainer_arguments(settings, tmp_path, 0)


def test_one_process_is_the_main_one_and_waits_for_nobody():
    assert ranks.is_main()
    assert ranks.gathered([1, 2]) == [1, 2]
    assert ranks.agreed(lambda: 3) == ranks.from_main(lambda: 3) == 3
    for together in (ranks.agreed, ranks.from_main):
        with pytest.raises(InfrastructureError, match="down"):
            together(lambda: raise_(InfrastructureError("down")))
    with ranks.Rounds(lambda: raise_(AssertionError)) as _:
        pass


def raise_(error):
    raise error


def test_the_launcher_replaces_itself_by_one_process(tmp_path, monkeypatch):
    from score.train import launch

    (tmp_path / "c.yaml").write_text(yaml.safe_dump(PAPER))
    seen = []
    monkeypatch.setattr("os.execv", lambda path, line: seen.append(line) or raise_(SystemExit))
    arguments = ["--config", str(tmp_path / "c.yaml"), "--agent", "qwen7b_dpo", "--seed", "1"]
    with pytest.raises(SystemExit):
        launch.main(arguments)
    assert seen == [[sys.executable, "-m", "score.train.dpo", *arguments]]
    with pytest.raises(ScoreError, match="'qwen7b' is not trained"):
        launch.main([*arguments[:3], "qwen7b"])


def test_a_node_without_apptainer_does_not_train_outside_of_the_image(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv(launch.IMAGE, "")
    with pytest.raises(ScoreError, match=r"neither apptainer nor singularity is on the PATH of .* or nodes: 1"):
        launch._on_this_cluster(Layout(gpus=2, nodes=2), "sft", [])
    monkeypatch.delenv(launch.IMAGE)
    assert sys.executable in launch._on_this_cluster(Layout(gpus=2, nodes=2), "sft", []), "images are off"
