"""By what a result knows the model that answered: the content of its files, a LoRA adapter's among them."""

import contextlib
from pathlib import Path

import pytest
import yaml

from score import attempts
from score.attempts import acting
from score.config import load
from score.config.load import merge
from score.config.schema import Model
from score.engine import digest_of
from score.provenance import model_digest

ROOT = Path(__file__).parents[2]


def folder(path: Path, weights: str, file: str = "model.safetensors") -> str:
    path.mkdir(exist_ok=True)
    (path / file).write_text(weights)
    (path / "config.json").write_text("{}")
    return str(path)


@pytest.fixture
def tuned(tmp_path) -> Model:
    adapters = {name: folder(tmp_path / name, name, "adapter_model.safetensors") for name in ("mine", "other")}
    return Model(engine="vllm", path=folder(tmp_path / "base", "base"), adapters=adapters, adapter="mine")


def test_a_retrained_adapter_is_another_model(tuned, tmp_path):
    before = digest_of(tuned)
    folder(tmp_path / "other", "retrained", "adapter_model.safetensors")
    assert digest_of(tuned) == before, "the other one does not answer"
    folder(tmp_path / "mine", "retrained", "adapter_model.safetensors")
    assert digest_of(tuned) != before


def test_weights_in_the_older_format_count_too(tuned, tmp_path):
    before = digest_of(tuned)
    folder(tmp_path / "mine", "weights", "adapter_model.bin")
    assert digest_of(tuned) != before


def test_without_an_adapter_a_model_is_what_its_folder_holds(tuned, tmp_path):
    plain = tuned.model_copy(update={"adapter": None})
    assert digest_of(plain) == model_digest(tuned.path) != digest_of(tuned)
    trained = folder(tmp_path / "trained", "trained")
    assert digest_of(tuned, trained) == model_digest(trained), "a trained model is served without adapters"


def test_an_agent_attempts_tasks_anew_with_a_retrained_adapter(tuned, tmp_path, monkeypatch):
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config = merge(config, yaml.safe_load((ROOT / "configs/micro.yaml").read_text()))
    config = load(merge(config, {"models": {"student": tuned.model_dump()}}))
    monkeypatch.setattr(attempts, "open_engine", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(attempts, "sandbox", lambda config: contextlib.nullcontext())

    def digest() -> str:
        with acting(config, "untrained", 0, tmp_path, tmp_path / "log", {}) as agent:
            return agent.digest

    before = digest()
    folder(tmp_path / "mine", "retrained", "adapter_model.safetensors")
    assert digest() != before
