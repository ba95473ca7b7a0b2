"""The memory estimate: its parameter counts against built models, its sums against ones by hand."""

import pytest
import torch

from score.config.training import Dpo, Grpo, Lora, Sft
from score.train.memory import GB, Shape, estimate

QWEN_7B = {
    "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
    "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False,
}  # fmt: skip
QWEN_3B = {
    "model_type": "qwen2", "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
    "num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip
QWEN_05B = {
    "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip
QWEN3_8B = {
    "model_type": "qwen3", "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
    "tie_word_embeddings": False,
}  # fmt: skip
LLAMA_8B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
}  # fmt: skip
MODELS = [QWEN_7B, QWEN_3B, QWEN_05B, QWEN3_8B, LLAMA_8B, {**LLAMA_8B, "attention_bias": True, "mlp_bias": True}]
SFT = Sft(lr=1e-5, batch=128, micro_batch=2, max_length=4096)


@pytest.mark.parametrize("config", MODELS, ids=lambda c: f"{c['model_type']}-{c['hidden_size']}")
def test_parameters_are_those_of_the_model_itself(config):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    words = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **words))
    shape = Shape.of(model.config.to_dict())
    assert shape == Shape.of(config)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert shape.block == sum(p.numel() for p in model.model.layers[0].parameters())
    with torch.device("meta"):
        adapted = get_peft_model(model, LoraConfig(r=3, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert 3 * shape.lora == sum(p.numel() for p in adapted.parameters() if p.requires_grad)


def test_full_fine_tuning_by_hand():
    """7,615,616,512 parameters; 8192 tokens in a forward pass."""
    found = estimate(Shape.of(QWEN_7B), SFT)
    assert found.states == 18 * 7_615_616_512
    assert found.activations == 4 * 8192 * 3584 * 28 + 2 * 8192 * (16 * 3584 + 2 * 512 + 6 * 18944)
    assert found.logits == 8 * 4096 * 32768 + 4 * 152064 * 3584
    assert found.total / GB == pytest.approx(137.1 + 3.3 + 2.8 + 1.1 + 2.2 + 2.0, abs=0.1)
    assert "about 148.4 GB on each GPU" in str(found)


def test_spreading_divides_the_states_and_nothing_else():
    shape = Shape.of(QWEN_7B)
    spread = estimate(shape, SFT.model_copy(update={"gpus": 8, "sharding": "fsdp2"}))
    assert spread.states == 2 * shape.parameters + 8 * 233_057_792 + 10 * 152064 * 3584
    assert spread.activations == estimate(shape, SFT).activations
    copies = estimate(shape, SFT.model_copy(update={"gpus": 8, "sharding": "ddp"}))
    assert copies.states == 22 * shape.parameters


def test_adapters_by_hand():
    """Rank 16 on the seven linear layers of 28 blocks: 40,370,176 parameters in float32."""
    found = estimate(Shape.of(QWEN_7B), SFT.model_copy(update={"lora": Lora(r=16)}))
    assert found.states == 2 * 7_615_616_512 + 16 * 40_370_176
    assert found.reference == 0


def test_rl_generates_when_it_does_not_train():
    settings = Grpo(lr=1e-6, updates=1, batch=256, micro_batch=2, lora=Lora())
    found = estimate(Shape.of(QWEN_7B), settings)
    assert found.generation == 4 * 28 * 512 * 64 * 6144 + 12 * 64 * 152064
    assert found.total == found.states + found.reserve + max(found.generation, found.activations + found.logits)
    eight = estimate(Shape.of(QWEN_7B), settings.model_copy(update={"gpus": 8}))
    assert eight.generation == found.generation / 2, "32 conversations on each"


def test_a_reference_counts_where_one_is_kept():
    shape = Shape.of(QWEN_05B)
    pairs = Dpo(lr=1e-6, batch=8, micro_batch=1)
    assert estimate(shape, pairs).reference == 4 * 494_032_768
    assert estimate(shape, pairs.model_copy(update={"lora": Lora()})).reference == 0
    rl = Grpo(lr=1e-6, updates=1, batch=16, micro_batch=1)
    assert [estimate(shape, rl.model_copy(update={"beta": b})).reference > 0 for b in (0.0, 0.1)] == [False, True]


def test_of_other_models_nothing_is_claimed():
    assert Shape.of({"model_type": "mamba2", "hidden_size": 8}) is None


READY = [
    ("7b_full_8x80", QWEN_7B, 80, 8),
    ("7b_lora_1x80", QWEN_7B, 80, 1),
    ("3b_lora_1x48", QWEN_3B, 48, 1),
    ("0.5b_full_1x24", QWEN_05B, 24, 1),
]


@pytest.mark.parametrize(
    ("name", "model", "room", "gpus"), READY, ids=lambda value: value if type(value) is str else ""
)
def test_ready_runs_fit_their_gpus(name, model, room, gpus):
    from pathlib import Path

    from score.cluster import jobs
    from score.config import lineage, read_merged
    from score.train.launch import Layout

    root = Path(__file__).parents[2]
    config = read_merged([root / "config.yaml", root / f"configs/{name}.yaml"])
    assert all(stage.gpus(config) <= gpus for stage in jobs.stages(config))
    trained = jobs.trained_on_gpus(config)
    assert {lineage.agent(config, agent).method for agent in trained} >= {"sft", "grpo"}
    for agent in trained:
        entry = lineage.agent(config, agent)
        settings = getattr(config.training, entry.method)[entry.settings]
        assert settings.processes == Layout.of(config, agent).processes
        found = estimate(Shape.of(model), settings)
        print(name, agent, found)
        assert found.total <= 0.9 * room * GB, f"{agent}: {found}"
