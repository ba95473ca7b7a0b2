"""GPUs dealt out between the servers of one job; nothing runs on any."""

import os

import pytest

from score.config.schema import Model
from score.engine import check_gpus, gpus, keep_gpus
from score.engine.gpus import Gpus, environment, visible
from score.errors import ScoreError


def model(count: int) -> Model:
    return Model(engine="vllm", path="m", gpus=count)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("0,1,2", ["0", "1", "2"]),
        ("3", ["3"]),
        ("GPU-ab-1, GPU-cd-2", ["GPU-ab-1", "GPU-cd-2"]),
        ("MIG-GPU-ab/1/0", ["MIG-GPU-ab/1/0"]),
        ("", []),
        ("-1", []),
        ("2,-1,1", ["2"]),
        ("NoDevFiles", []),
    ],
)
def test_the_gpus_of_a_job_are_those_that_cuda_would_see(value, names):
    assert visible({"CUDA_VISIBLE_DEVICES": value}) == names


def test_without_the_variable_all_of_the_machine_are_there(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho GPU-a\necho GPU-b\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert visible({}) == ["GPU-a", "GPU-b"]
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert visible({}) == []


def test_two_servers_get_gpus_of_their_own_and_give_them_back():
    job = Gpus(["GPU-a", "GPU-b", "GPU-c"])
    with job.lent(model(2)) as teacher, job.lent(model(1)) as student:
        assert environment(teacher) == {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}
        assert environment(student) == {"CUDA_VISIBLE_DEVICES": "GPU-c"}
        assert job.device(student) == "cuda:2"
    with job.lent(model(3)) as again:
        assert sorted(again) == ["GPU-a", "GPU-b", "GPU-c"]


def test_a_model_without_gpus_touches_none():
    with Gpus([]).lent(model(0)) as taken:
        assert environment(taken) == {}


def test_too_few_are_named_before_anything_starts(monkeypatch):
    monkeypatch.setattr(gpus, "of_this_job", lambda: Gpus(["0", "1", "2"]))
    check_gpus(teacher=model(2), student=model(1))
    with pytest.raises(ScoreError, match=r"^models: 5 GPUs \(teacher 4, student 1\) are wanted, 3 are there; .*$"):
        check_gpus(teacher=model(4), student=model(1))
    check_gpus(teacher=Model(engine="endpoint", url="http://x", gpus=8), student=Model(engine="oracle"))


def test_a_trainer_keeps_its_own_and_leaves_the_others_to_its_judge(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    job = Gpus(visible(os.environ))
    job.keep(model(2), {"reward_judge": model(1)})
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,5"
    with job.lent(model(1)) as judge:
        assert judge == ("6",)
    with pytest.raises(ScoreError, match="2 GPUs are wanted, 1 are there"), job.lent(model(2)):
        pass


def test_a_trainer_that_names_no_gpus_has_those_that_its_judge_leaves(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    job = Gpus(visible(os.environ))
    monkeypatch.setattr(gpus, "of_this_job", lambda: job)
    keep_gpus(model(0), reward_judge=model(1))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,5"
    with job.lent(model(1)) as judge:
        assert judge == ("6",)
    with pytest.raises(ScoreError, match="1 GPUs are wanted, 0 are there"), job.lent(model(1)), job.lent(model(1)):
        pass


def test_a_trainer_for_which_its_judge_leaves_no_gpu_is_refused_and_not_run_on_the_cpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    monkeypatch.setattr(gpus, "of_this_job", lambda: Gpus(["4"]))
    with pytest.raises(ScoreError, match=r"^models: the judge's server takes all 1 GPUs.*`gpus`[^\n]*$"):
        keep_gpus(model(0), reward_judge=model(1))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4"


def test_a_trainer_without_a_judge_on_gpus_sees_what_it_saw(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    keep_gpus(model(0), reward_judge=Model(engine="endpoint", url="http://x", gpus=8))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,5"
