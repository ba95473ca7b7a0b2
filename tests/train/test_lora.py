"""LoRA in SFT, RL and DPO on the shipped student, whose embeddings are tied: what it leaves alone, what it leaves
behind, and that an adapter that is not merged serves whoever takes a trained model."""

import copy
import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from test_card import RECORD
from test_dpo import SETTINGS as DPO
from test_dpo import key_step as dpo_step
from test_grpo_provenance import mapping
from test_sft import trajectory
from toy_rl import key_step, make_trainer

from score.agent.protocol import Message
from score.config.schema import Model, Sampling
from score.config.training import Lora, Sft
from score.engine import digest_of, open_engine, vllm
from score.engine.base import Request
from score.engine.transformers import load_model
from score.errors import ScoreError
from score.jsonl import write_json, write_rows
from score.micro.base import WEIGHTS
from score.provenance import model_digest
from score.records import Task
from score.train import dpo, sft
from score.train.output import finish, lora
from score.train.rows import LeftOut, training_set
from score.train.start import StartModel

SETTINGS = Sft(lr=1e-2, epochs=2, batch=4, micro_batch=2, max_length=256, save_every=50, lora=Lora(r=4, alpha=8))
ALONE = SETTINGS.model_copy(update={"lora": Lora(r=4, alpha=8, merge=False)})
IDS = torch.arange(5, 25)[None]


def start(path: Path = WEIGHTS) -> StartModel:
    model, codec = load_model(str(path), "float32")
    return StartModel(model, codec, model_digest(str(path)), str(path), None, model.dtype)


def train(begin: StartModel, settings: Sft, out: Path):
    """SFT from `begin` into `out`, as the stage does it; returns the trained model as it was in memory."""
    data = training_set([trajectory(n) for n in ("Bo", "Ba", "Be", "Bi")], begin.codec, 256)
    model, history = sft.train(begin.model, begin.codec, data, settings, out / "work", 0, "test")
    logits = logits_of(model)
    finish(out, model, begin, history, RECORD, out / "work", settings, data.left_out)
    return logits


@torch.no_grad()
def logits_of(model) -> torch.Tensor:
    return model.eval()(input_ids=IDS).logits


def tied(model) -> bool:
    return model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_tied_embeddings_are_left_alone_and_stay_tied_in_the_merged_model(tmp_path):
    begin = start()
    embeddings, before = begin.model.get_input_embeddings().weight.detach().clone(), logits_of(begin.model)
    trained = train(begin, SETTINGS, tmp_path)
    merged, _ = load_model(str(tmp_path / "model"), "float32")
    assert tied(merged)
    assert torch.equal(merged.get_input_embeddings().weight, embeddings)
    assert not torch.allclose(trained, before, atol=1e-2), "it has learned something"
    torch.testing.assert_close(logits_of(merged), trained, rtol=0, atol=1e-4)
    assert not (tmp_path / "model/adapter_config.json").exists()


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """(folder of an adapter that was not merged, the logits of the model that was trained)."""
    out = tmp_path_factory.mktemp("adapter")
    logits = train(start(), ALONE, out)
    return out / "model", logits


def test_an_adapter_that_is_not_merged_is_loaded_as_the_trained_model(adapter):
    folder, trained = adapter
    assert {p.name for p in folder.glob("*.safetensors")} == {"adapter_model.safetensors"}
    model, codec = load_model(str(folder), "float32")
    torch.testing.assert_close(logits_of(model), trained, rtol=0, atol=1e-4)
    assert tied(model)
    assert all(weights.requires_grad for weights in model.parameters()), "the next stage may train all of it"
    assert codec.prompt([Message("user", "What?")]) == start().codec.prompt([Message("user", "What?")])


def test_its_digest_is_of_the_adapter_and_of_the_model_below_it(adapter, tmp_path):
    folder, _ = adapter
    entry = Model(engine="transformers", path="micro")
    assert digest_of(entry, str(folder)) == model_digest(str(folder)) != model_digest(str(WEIGHTS))
    train(replace(start(), digest="other weights"), ALONE, tmp_path)
    assert model_digest(str(tmp_path / "model")) != model_digest(str(folder)), "the same adapter on another model"


def test_an_agent_acts_with_it_in_process(adapter, tmp_path):
    entry = Model(engine="transformers", path="micro", context=128, batch=2, dtype="float32")
    request = Request((Message("user", "How many coins has Ba?"),), Sampling(temperature=0, max_new_tokens=8), seed=0)
    with open_engine(entry, tmp_path / "log", path=str(adapter[0])) as engine:
        (reply,) = engine.complete([request])
        assert logits_of(engine.model).shape == adapter[1].shape
    assert reply.token_ids


def test_a_vllm_server_puts_it_on_the_model_that_it_names(adapter, tmp_path):
    entry = Model(engine="vllm", path="org/model", revision="abc", adapters={"a": "/l/a"}, adapter="a")
    line = " ".join(vllm.command(entry, str(adapter[0]), "/run/socket", trained=True))
    assert f"--model {WEIGHTS} --served-model-name below --enable-lora --max-lora-rank 8" in line
    assert f"--lora-modules {vllm.name(entry, trained=True)}={adapter[0]}" in line
    assert "abc" not in line
    assert "/l/a" not in line

    config = json.loads((adapter[0] / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": "org/model", "revision": "abc", "r": 48})
    )
    line = " ".join(vllm.command(entry, str(tmp_path), "/run/socket", trained=True))
    assert "--model org/model --served-model-name below --enable-lora --max-lora-rank 64" in line
    assert "--revision abc --tokenizer-revision abc" in line


def test_an_adapter_trained_on_an_adapter_is_one_on_the_complete_model(adapter, tmp_path):
    trained = train(start(adapter[0]), ALONE, tmp_path)
    config = json.loads((tmp_path / "model/adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"]) == (str(WEIGHTS), 8)
    assert not (tmp_path / "model/both").exists()
    torch.testing.assert_close(logits_of(load_model(str(tmp_path / "model"), "float32")[0]), trained, rtol=0, atol=1e-4)


def test_full_fine_tuning_goes_on_from_an_adapter(adapter, tmp_path):
    trained = train(start(adapter[0]), SETTINGS.model_copy(update={"lora": None}), tmp_path)
    complete, _ = load_model(str(tmp_path / "model"), "float32")
    assert not (tmp_path / "model/adapter_config.json").exists()
    assert tied(complete)
    torch.testing.assert_close(logits_of(complete), trained, rtol=0, atol=1e-4)


def test_an_adapter_whose_model_is_gone_is_named_with_it(adapter, tmp_path):
    config = json.loads((adapter[0] / "adapter_config.json").read_text())
    for base, message in (("/gone/model", "/gone/model"), (None, "does not say which model it belongs to")):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": base}))
        with pytest.raises(ScoreError, match=f"{tmp_path}.*{message}"):
            load_model(str(tmp_path), "float32")


def test_activation_checkpointing_changes_memory_and_nothing_else(tmp_path):
    def losses(checkpointing: bool) -> list[float]:
        begin = start()
        data = training_set([trajectory(n) for n in ("Bo", "Ba")], begin.codec, 256)
        settings = SETTINGS.model_copy(update={"checkpointing": checkpointing, "batch": 2})
        _, history = sft.train(begin.model, begin.codec, data, settings, tmp_path / str(checkpointing), 0, "test")
        return [row["loss"] for row in history if "loss" in row]

    assert losses(True) == pytest.approx(losses(False), abs=1e-6)


def test_the_reference_of_dpo_is_the_model_without_its_adapter(tmp_path):
    """The same losses as with a copy of the starting model for a reference."""

    def losses(reference, folder: str) -> list[float]:
        begin = start()
        data = dpo.pairs([dpo_step(name) for name in ("Ba", "Bo", "Be", "Bi")], begin.codec, 256).rows
        settings = DPO.model_copy(update={"lora": Lora(r=4, alpha=8)})
        model, history = dpo.train(begin.model, reference, begin.codec, data, settings, tmp_path / folder, 0, "dpo")
        assert any(weights.abs().sum() > 0 for name, weights in model.named_parameters() if "lora_B" in name)
        return [row["loss"] for row in history if "loss" in row]

    alone = losses(None, "alone")
    assert alone == pytest.approx(losses(start().model, "copy"), abs=1e-5)
    assert alone[0] == pytest.approx(0.6931, abs=1e-3), "it starts as its own reference"
    assert alone[-1] < alone[0]


def test_grpo_trains_adapters_and_leaves_tied_embeddings_alone(tmp_path):
    begin = start()
    embeddings = begin.model.get_input_embeddings().weight.detach().clone()
    before = copy.deepcopy(begin.model)
    model = lora(begin.model, Lora(r=4, alpha=8))
    trainer = make_trainer((model, begin.codec), tmp_path, [key_step("Ba"), key_step("Bo")], beta=0.1)
    trainer.train()
    with model.disable_adapter():
        assert torch.equal(logits_of(model), logits_of(before)), "the reference is what it started from"
    assert not torch.equal(logits_of(model), logits_of(before))
    settings = ALONE.model_copy(update={"lora": Lora(r=4, alpha=8)})
    finish(tmp_path / "out", model, begin, trainer.state.log_history, RECORD, tmp_path, settings, LeftOut())
    merged, _ = load_model(str(tmp_path / "out/model"), "float32")
    assert tied(merged)
    assert torch.equal(merged.get_input_embeddings().weight, embeddings)
    assert next(row["kl"] for row in trainer.state.log_history if "kl" in row) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("stage", "agent", "data"), [(sft, "score_sft", "sft.jsonl"), (dpo, "dpo", "rl.jsonl")])
def test_a_stage_looks_at_held_out_questions_and_leaves_the_best_model_with_its_card(stage, agent, data, tmp_path):
    """Through the command lines, with the real sandbox."""
    settings = {"batch": 2, "micro_batch": 2, "epochs": 1, "eval_every": 1, "select": "best"}
    training = {"sft": {"score_sft": settings}, "dpo": {"key_step_pairs": settings}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(mapping({"training": training})))
    held_out = Task("held", "How many coins has Ba?", ("5",), "toy", {"metric": "exact"})
    write_rows(tmp_path / "tasks.jsonl", [held_out.to_json()])
    write_json(tmp_path / "splits.json", {"cold_start": [], "mentored": [], "held_out": ["held"]})
    write_rows(tmp_path / "sft.jsonl", [trajectory(name).to_json() for name in ("Bo", "Ba", "Be", "Bi")])
    write_rows(tmp_path / "rl.jsonl", [key_step(name).to_json() for name in ("Ba", "Bo", "Be", "Bi")])
    for name in ("bc20", "score_sft"):
        (tmp_path / f"train/{name}-s0").mkdir(parents=True)
        (tmp_path / f"train/{name}-s0/model").symlink_to(WEIGHTS)
    out = tmp_path / "out"
    words = {"config": tmp_path / "config.yaml", "agent": agent, "root": tmp_path, "out": out, "work": tmp_path / "w"}
    words |= {"data": tmp_path / data, "tasks": tmp_path / "tasks.jsonl", "splits": tmp_path / "splits.json"}
    stage.main([word for name, value in words.items() for word in (f"--{name}", str(value))])
    rows = [row for row in csv.DictReader((out / "log.csv").read_text().splitlines()) if row["heldout/accuracy"]]
    assert [row["step"] for row in rows] == ["0", "1", "2"]
    chosen = json.loads((out / "provenance.json").read_text())["selected"]
    assert chosen == {"update": 1, "held_out": float(rows[1]["heldout/accuracy"])}, "the earlier of equals"
    assert "of update 1, the one that solved most held-out questions" in (out / "model/README.md").read_text()


def test_every_stage_goes_on_from_an_adapter_of_the_one_before(tmp_path):
    """Through the command lines: SFT, SFT, then RL and DPO; each adapter belongs to the shipped student."""
    from score.train import grpo

    alone, few = {"lora": {"r": 4, "alpha": 8, "merge": False}, "batch": 4, "micro_batch": 4}, {"epochs": 1}
    rl = {"updates": 1, "generations": 4, "eval_every": 0, "beta": 0.0}
    training = {
        "sft": {"cold_start": alone | few, "score_sft": alone | few},
        "grpo": {"score_rl": alone | rl},
        "dpo": {"key_step_pairs": alone | few},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(mapping({"training": training})))
    turns = [trajectory(name) for name in ("Bo", "Ba", "Be", "Bi")]
    write_rows(tmp_path / "sft.jsonl", [t.to_json() for t in (*turns, trajectory("Bu", plan=" "))])
    write_rows(tmp_path / "rl.jsonl", [key_step(name).to_json() for name in ("Ba", "Bo")])
    for main, agent, data, rank in (
        (sft.main, "bc20", "sft.jsonl", 4),
        (sft.main, "score_sft", "sft.jsonl", 8),
        (grpo.main, "score_rl", "rl.jsonl", 12),
        (dpo.main, "dpo", "rl.jsonl", 12),
    ):
        out = tmp_path / "train" / f"{agent}-s0"
        words = {"config": tmp_path / "config.yaml", "agent": agent, "root": tmp_path, "out": out}
        words |= {"work": tmp_path / "work" / agent, "data": tmp_path / data}
        main([word for name, value in words.items() for word in (f"--{name}", str(value))])
        config = json.loads((out / "model/adapter_config.json").read_text())
        assert (config["base_model_name_or_path"], config["r"]) == (str(WEIGHTS), rank)
        assert json.loads((out / "provenance.json").read_text())["model"] == model_digest(str(out / "model"))
        named = ["id,reason", "Bu,empty_turn"] if data == "sft.jsonl" else ["id,reason"]
        assert (out / "left_out.csv").read_text().splitlines() == named
