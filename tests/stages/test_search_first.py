"""Every stage that acts opens its search before any model, with the purpose that it has."""

import json
from pathlib import Path

import pytest
import yaml

from score import attempts, rollout
from score.config import load
from score.config.__main__ import dump
from score.config.load import merge
from score.correct import __main__ as correct
from score.errors import ScoreError
from score.evaluate import __main__ as evaluate
from score.jsonl import write_rows
from score.records import Step, StopReason, Task, Trajectory
from score.search import open_search
from score.train import grpo, start, variance

ROOT = Path(__file__).parents[2]
CONFIG = load(
    merge(yaml.safe_load((ROOT / "config.yaml").read_text()), yaml.safe_load((ROOT / "configs/micro.yaml").read_text()))
)
TASK = Task("1", "q", ("5",), "toy", {"metric": "exact"})
STAGES = {"rollout": "train", "correct": "train", "grpo": "train", "variance": "train", "evaluate": "test"}


def call(name, folder, config):
    """A stage's command line, with input files that are there."""
    files = {key: folder / f"{key}.jsonl" for key in ("tasks", "data", "splits", "out", "config", "provenance")}
    files["config"].write_text(dump(config))
    write_rows(files["tasks"], [TASK.to_json()])
    steps = tuple(Step("t", "print(1)", "1") for _ in range(6))
    write_rows(files["data"], [Trajectory(TASK, "p", steps, StopReason.ANSWERED).to_json()])
    files["splits"].write_text(json.dumps({"cold_start": ["1"], "mentored": ["1"], "held_out": ["1"]}))
    common = ["--config", files["config"], "--root", folder, "--seed", 0]
    work, tasks, splits = ["--work", folder / "work"], ["--tasks", files["tasks"]], ["--splits", files["splits"]]
    results = ["--out", files["out"], "--provenance", files["provenance"]]
    main, *own = {
        "rollout": (rollout.main, "--agent", "teacher", *work, *tasks, *splits, "--part", "cold_start", *results),
        "correct": (correct.main, "--agent", "bc20", *work, *tasks, *splits, *results),
        "grpo": (
            *(grpo.main, "--agent", "score_rl", *work, *tasks, *splits),
            *("--data", files["data"], "--out", folder / "model"),
        ),
        "variance": (variance.main, "--agent", "score_sft", "--data", files["data"], "--out", files["out"]),
        "evaluate": (evaluate.main, "--agent", "untrained", *work, *tasks, *results),
    }[name]
    main([str(word) for word in (*common, *own)])


@pytest.mark.parametrize(("name", "purpose"), STAGES.items())
def test_a_missing_key_ends_a_job_before_any_model_is_loaded(name, purpose, tmp_path, monkeypatch):
    def no_model(*_, **__):
        raise AssertionError("a model was loaded first")

    (tmp_path / "train" / "bc20-s0" / "model").mkdir(parents=True)
    (tmp_path / "train" / "score_sft-s0" / "model").mkdir(parents=True)
    for module, function in (
        *((m, "open_engine") for m in (attempts, correct, grpo)),
        (start, "load_start"), (variance, "load_model"), (attempts, "digest_of"),
    ):  # fmt: skip
        monkeypatch.setattr(module, function, no_model)
    purposes = []
    monkeypatch.setattr(
        attempts.search, "open_search", lambda settings, p: purposes.append(p) or open_search(settings, p)
    )
    monkeypatch.delenv("TAVILY_API_KEY", raising=False)
    search = CONFIG.search.model_copy(update={"backend": "tavily"})
    with pytest.raises(ScoreError, match="set the environment variable TAVILY_API_KEY"):
        call(name, tmp_path, CONFIG.model_copy(update={"search": search}))
    assert purposes == [purpose]


def test_training_and_test_record_into_files_of_their_own(tmp_path):
    search = CONFIG.search.model_copy(update={"mode": "record", "cache": str(tmp_path)})
    config = CONFIG.model_copy(update={"search": search})
    for purpose in ("train", "test"):
        with attempts.open_tools(config, purpose) as tools:
            tools["web_search"]("a query of nobody")
        assert (tmp_path / f"{purpose}.sqlite").exists()
