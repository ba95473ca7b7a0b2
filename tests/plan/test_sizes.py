"""A model's parameters come from its files, else from its name, else from the user."""

import json

import pytest

from plan.small import mapping
from score.config import load
from score.plan.assumptions import Assumptions
from score.plan.sizes import parameters

QWEN = {
    "model_type": "qwen2", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
}  # fmt: skip


def test_from_files_names_and_assumptions(tmp_path):
    snapshot = tmp_path / "hub/models--Qwen--Qwen2.5-7B-Instruct/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(QWEN))
    (snapshot / "model.safetensors").write_bytes(b"x")
    remote = {"engine": "endpoint", "url": "http://localhost:1/v1"}
    nameless = {"engine": "vllm", "path": "org/large"}
    config = load(mapping(models={"far": remote, "large": nameless, "qwen3_8b": {"path": "org/renamed"}}))
    found = parameters(config, tmp_path, Assumptions(own={"parameters.llama3.1_8b": 8.03e9}))
    assert found["qwen2.5_7b"] == pytest.approx(87_000, rel=0.1), "its config.json, not its name"
    assert found["qwen2.5_72b"] == 72e9
    assert found["llama3.1_8b"] == 8.03e9
    assert found["qwen3_8b"] == 8e9, "the config's name for it"
    assert found["far"] == 0
    assert found["large"] is None


def test_the_shipped_student_is_known(tmp_path):
    found = parameters(load(mapping("micro.yaml")), tmp_path, Assumptions())
    assert 3e5 < found["student"] < 5e5
    assert found["oracle"] == 0
