"""What the provenance of an RL run says of the judge that gave its rewards."""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from score.config.load import merge
from score.jsonl import write_rows
from score.train import grpo, output, start

ROOT = Path(__file__).parents[2]


def mapping(*overlays: dict) -> dict:
    """The micro-world's config, without looks at held-out questions in RL."""
    raw = yaml.safe_load((ROOT / "config.yaml").read_text())
    overlays = ({"training": {"grpo": {"score_rl": {"eval_every": 0}}}}, *overlays)
    for overlay in (yaml.safe_load((ROOT / "configs/micro.yaml").read_text()), *overlays):
        raw = merge(raw, overlay)
    return raw


@pytest.fixture
def record(tmp_path, monkeypatch):
    """Makes the provenance record of a run in which nothing is trained."""

    def run(config: dict) -> dict:
        found = {}
        begun = SimpleNamespace(model=None, codec=SimpleNamespace(tokenizer=None), digest="start", dtype=None)
        monkeypatch.setattr(start, "load_start", lambda *_: begun)
        monkeypatch.setattr(output, "finish", lambda *args: found.update(args[4]))
        monkeypatch.setattr(grpo, "open_tools", lambda *_: contextlib.nullcontext({}))
        monkeypatch.setattr(grpo, "usable", lambda rows, *_: (rows, {"used": 0}))
        monkeypatch.setattr(grpo, "train", lambda *_, **__: (None, []))
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        write_rows(tmp_path / "rl.jsonl", [])
        words = {"config": "config.yaml", "root": "", "work": "w", "data": "rl.jsonl", "out": "o"}
        words = [word for name, path in words.items() for word in (f"--{name}", str(tmp_path / path))]
        grpo.main(["--agent", "score_rl", "--seed", "0", *words])
        return found

    return run


def test_the_judge_is_known_by_its_name_and_its_files(record, tmp_path):
    (tmp_path / "judge").mkdir()
    endpoint = {"engine": "endpoint", "url": "http://x/v1", "path": str(tmp_path / "judge")}
    config = mapping({"models": {"small": endpoint}, "roles": {"reward_judge": "small"}})
    told = []
    for weights in ("one", "two"):
        (tmp_path / "judge" / "model.safetensors").write_text(weights)
        told.append(record(config)["reward_judge"])
    assert [judge["name"] for judge in told] == ["small", "small"]
    assert told[0]["model"] != told[1]["model"]


def test_without_a_judge_there_is_none(record):
    assert record(mapping())["reward_judge"] is None
