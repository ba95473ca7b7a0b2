"""The examples of docs/SERVING.md, "Dividing GPUs": real jobs with made-up GPUs and a fake vLLM do what it says."""

import contextlib
import json
import os
import re
from pathlib import Path

import fake_vllm
import pytest
import yaml

from fakes import ROOT, mapping
from score import attempts
from score.cluster import checks, jobs
from score.config import load
from score.config.__main__ import dump
from score.config.load import merge
from score.correct import __main__ as correct
from score.engine import gpus, shared, vllm
from score.jsonl import write_rows
from score.records import Step, StopReason, Task, Trajectory
from score.train import grpo, ranks, start

SECTION = re.search(r"## Dividing GPUs\n(.+?)\n## ", (ROOT / "docs/SERVING.md").read_text(), re.DOTALL)[1]
BLOCKS = re.findall(r"```yaml\n# (\d) GPUs\n(.+?)```", SECTION, re.DOTALL)
EXAMPLES = [
    pytest.param(int(count), text, dict(re.findall(r"^# ([\w. ]+): (.+)$", text, re.MULTILINE)), id=f"{kind}-{count}")
    for kind, blocks in (("one job", BLOCKS[:2]), ("served", BLOCKS[2:]))
    for count, text in blocks
]
ONE_JOB, SERVED = EXAMPLES[:2], EXAMPLES[2:]
UUIDS = ["GPU-5a-1", "GPU-5a-2", "GPU-5a-3", "GPU-5a-4", "GPU-5a-5", "GPU-5a-6", "GPU-5a-7", "GPU-5a-8"]


class Opened(Exception):
    """All servers of a job are open: as far as these tests go."""


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Makes this process one that has some GPUs, and the servers that it starts fake ones."""
    monkeypatch.setenv(vllm.PYTHON_VARIABLE, fake_vllm.install(tmp_path))

    def given(names: list[str]) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(names))
        found = gpus.Gpus(names)
        monkeypatch.setattr(gpus, "of_this_job", lambda: found)

    return given


def example(text: str):
    return load(mapping(**yaml.safe_load(text)))


def called(main, folder: Path, config, agent: str, *more: object) -> None:
    """A stage's command line, with input files that are there, up to where its servers are open."""
    task = Task("1", "q", ("5",), "toy", {"metric": "exact"})
    steps = tuple(Step("t", "print(1)", "1") for _ in range(6))
    (folder / "config.yaml").write_text(dump(config))
    write_rows(folder / "tasks.jsonl", [task.to_json()])
    write_rows(folder / "data.jsonl", [Trajectory(task, "p", steps, StopReason.ANSWERED).to_json()])
    (folder / "splits.json").write_text(json.dumps({"cold_start": [], "mentored": ["1"], "held_out": ["1"]}))
    words = ["--config", folder / "config.yaml", "--agent", agent, "--root", folder, "--work", folder / "work"]
    words += ["--tasks", folder / "tasks.jsonl", "--splits", folder / "splits.json", "--out", folder / "out"]
    with pytest.raises(Opened):
        main([str(word) for word in (*words, *more)])


def correcting(folder: Path, config, monkeypatch) -> dict[str, dict]:
    """Runs correction; what each of its servers was given."""

    def opened(config):
        raise Opened

    monkeypatch.setattr(correct, "open_tools", lambda *_: contextlib.nullcontext({}))
    monkeypatch.setattr(attempts, "trained_model", lambda *_: folder)
    monkeypatch.setattr(attempts, "digest_of", lambda *_: "digest")
    monkeypatch.setattr(attempts, "sandbox", opened)
    called(correct.main, folder, config, "qwen7b_bc20", "--provenance", folder / "provenance")
    return {log.name.split(".")[0]: fake_vllm.said(log) for log in (folder / "work").glob("*.log")}


def reinforcing(folder: Path, config, monkeypatch) -> dict[str, dict]:
    """Runs RL; what the trainer has kept, and what its judge's server was given."""
    kept = {}

    def train(model, codec, rows, config, agent, settings, work, *_, usage, **__):
        kept["training"] = {"CUDA_VISIBLE_DEVICES": os.environ["CUDA_VISIBLE_DEVICES"]}
        with grpo.reward_model(config, agent, settings, work, usage):
            kept["reward_judge"] = fake_vllm.said(work / "judge.log")
            raise Opened

    monkeypatch.setattr(grpo, "open_tools", lambda *_: contextlib.nullcontext({}))
    monkeypatch.setattr(start, "load_start", lambda *_: start.StartModel(None, None, "digest", "", None, None))
    monkeypatch.setattr(ranks, "start", lambda: None)
    monkeypatch.setattr(grpo, "KeyStep", type("Any", (), {"from_json": staticmethod(lambda row: row)}))
    monkeypatch.setattr(grpo, "usable", lambda *_: ([], {}))
    monkeypatch.setattr(grpo, "train", train)
    called(grpo.main, folder, config, "qwen7b_score_rl", "--data", folder / "data.jsonl")
    return kept


def line(shares: dict[str, dict], order: list[str]) -> str:
    return "; ".join(f"{who} CUDA_VISIBLE_DEVICES={shares[who]['CUDA_VISIBLE_DEVICES']}" for who in order)


def logged(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "gpus"]


def test_the_section_has_an_example_of_each_kind_for_4_and_8_gpus():
    assert [(count, len(lines) > 1) for count, _, lines in (e.values for e in EXAMPLES)] == [(4, True), (8, True)] * 2


@pytest.mark.parametrize("names", [["0", "1", "2", "3", "4", "5", "6", "7"], UUIDS], ids=["indices", "UUIDs"])
@pytest.mark.parametrize("stage", ["correct", "grpo"])
@pytest.mark.parametrize(("count", "text", "lines"), ONE_JOB)
def test_one_job_divides_its_gpus_as_it_says(count, text, lines, stage, names, job, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "gpus")
    job(names[:count])
    run = {"correct": correcting, "grpo": reinforcing}[stage]
    got = run(tmp_path, example(text), monkeypatch)
    order = [part.split()[0] for part in lines[stage].split("; ")]
    assert logged(caplog) == [f"GPUs: {line(got, order)}"]
    if names is not UUIDS:
        assert line(got, order) == lines[stage]


@pytest.mark.parametrize(("count", "text", "lines"), ONE_JOB)
def test_the_doctor_says_the_same_ahead_of_time(count, text, lines):
    config = example(text)
    found = [finding for finding in checks.division(jobs.stages(config), config) if "qwen2.5_7b" in finding.says]
    assert {finding.name: finding.says.partition(": ")[2] for finding in found} == {
        f"GPUs of {rule}": said for rule, said in lines.items()
    }
    assert all(stage.gpus(config) <= count for stage in jobs.stages(config))


@pytest.mark.parametrize(("count", "text", "lines"), SERVED)
def test_jobs_that_ask_a_served_model_take_no_gpus_for_it(count, text, lines, job, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "gpus")
    raw, served = mapping(**yaml.safe_load(text)), [name.split()[1] for name in lines if name.startswith("serve ")]
    taken = {name: load(raw).models[name].gpus for name in served}
    for name in served:
        entry = shared.entry_of(load(raw), name)
        job(list(map(str, range(entry.gpus))))
        shared.check_gpus(**{name: entry})
        with shared.shared(entry, "127.0.0.1", 0, "secret", tmp_path / name) as server:
            text = shared.overlay(name, entry, server.url, "secret")
        monkeypatch.setenv(entry.api_key_env, "secret")
        assert logged(caplog)[-1] == f"GPUs: {lines[f'serve {name}']}"
        assert line({name: fake_vllm.said(tmp_path / name)}, [name]) == lines[f"serve {name}"]
        raw = merge(raw, yaml.safe_load(text))
    config = load(raw)
    stages = {stage.rule: stage.gpus(config) for stage in jobs.stages(config) if "qwen2.5_7b" in stage.models}
    assert stages["correct"] == 1
    held = sum(taken.values())
    assert held + config.shards.correct * stages["correct"] == count, "the whole node, while the teacher is asked"
    widest = max(stage.gpus(config) for stage in jobs.stages(config) if "qwen2.5_7b" in stage.models)
    assert held + widest <= count, "nothing waits for a server to end"
    if "judge_7b" in served:
        assert stages["grpo"] == config.training.grpo["score_rl"].gpus
    job(["0"])
    got = correcting(tmp_path, config, monkeypatch)
    assert logged(caplog)[-1] == f"GPUs: {lines['correct']}"
    assert line(got, ["student"]) == lines["correct"]


def test_what_is_left_over_is_named_and_one_process_of_several_speaks(caplog, monkeypatch):
    caplog.set_level("INFO", "gpus")
    found = gpus.Gpus(["0", "1", "2"])
    found.tell({"teacher": ("0", "1")})
    monkeypatch.setenv("RANK", "1")
    found.tell({"teacher": ("0", "1")})
    assert logged(caplog) == ["GPUs: teacher CUDA_VISIBLE_DEVICES=0,1; left: 2"]
