"""How much memory of one GPU a training run takes, estimated from the model's shape and the settings alone.

Bytes, with P parameters, N processes, S = N where the model is spread over them (fsdp2, zero3) and else 1, n =
micro_batch x tokens of a row (SFT: max_length; DPO: twice that; RL: max_prompt + max_completion), and, of the model, L
blocks, hidden size h, width i inside a block, width k of its keys, vocabulary V:

    states       full: 16 P / S     float32 weights and gradients, and the two moments of AdamW
                 LoRA: b P / S + 16 T    b: bytes of a weight as loaded (2 in bfloat16); T: parameters of the adapters
                 full, a whole model in each: + 2 P (weights in bfloat16), + 4 P if N > 1 (gradients on their way)
                 spread: + 8 per weight of a block, and 10 per weight of the head, which come together in turn
    reference    4 P / S            full DPO, and full RL with a KL term; adapters are switched off instead
    activations  4 n h L            kept between blocks, the rest being computed again, and of one block
                 2 n (16 h + 2 k + 6 i)    what it computes, with the widest gradients; all L without checkpointing
    logits       8 of a tile        TRL goes through tokens and vocabulary in tiles of 4096 x 32768
                 + 4 V h            full: the gradient of the head is summed beside them
    generation   RL, while it does not train: for c = min(64, batch / N) conversations
                 4 L k c (max_prompt + max_completion) of keys and values, and 12 c V of logits
    reserve      2 GB               CUDA, the libraries, and what the allocator cannot use

An estimate of the first order, for attention that stores no n x n matrix; it has not been compared with a real GPU.
vLLM on the trainer's own GPU is not in it: it has `sampler_memory` of that while it samples, then it sleeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from score.config.training import Dpo, Grpo, Optim, Sft

GB = 10**9
KINDS = ("llama", "mistral", "qwen2", "qwen3")
"""Model types whose shape is understood."""
_TILE = (4096, 32768)
_TOGETHER = 64  # conversations that the trainer's own engine decodes at once
_RESERVE = 2 * GB


@dataclass(frozen=True)
class Shape:
    """A decoder: parameters in all, of one block and of the head, and its widths.

    `lora`: parameters that rank 1 adds to all linear layers of the blocks.
    """

    parameters: int
    block: int
    head: int
    lora: int
    layers: int
    hidden: int
    inner: int
    keys: int
    vocabulary: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape | None:
        """From what a model's config.json says; None for other kinds than `KINDS`."""
        if config.get("model_type") not in KINDS:
            return None
        hidden, inner, layers = (config[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers"))
        heads, vocabulary = config["num_attention_heads"], config["vocab_size"]
        width = config.get("head_dim") or hidden // heads
        queries, keys = heads * width, (config.get("num_key_value_heads") or heads) * width
        linear = 2 * hidden * queries + 2 * hidden * keys + 3 * hidden * inner
        lora = 2 * (hidden + queries) + 2 * (hidden + keys) + 3 * (hidden + inner)
        kind = config["model_type"]
        biased = kind == "qwen2" or bool(config.get("attention_bias"))
        biases = queries + 2 * keys if biased else 0
        biases += hidden if biased and kind != "qwen2" else 0
        biases += 2 * inner + hidden if config.get("mlp_bias") else 0
        block = linear + biases + 2 * hidden + (2 * width if kind == "qwen3" else 0)
        head = vocabulary * hidden
        embeddings = head if config.get("tie_word_embeddings") else 2 * head
        return cls(
            layers * block + embeddings + hidden, block, head, layers * lora, layers, hidden, inner, keys, vocabulary
        )


@dataclass(frozen=True)
class Estimate:
    """Bytes on one GPU, by what they are for. Generation and training take turns."""

    states: float
    reference: float
    activations: float
    logits: float
    generation: float
    reserve: float = _RESERVE

    @property
    def total(self) -> float:
        lasting = self.states + self.reference + self.reserve
        return lasting + max(self.activations + self.logits, self.generation)

    def __str__(self) -> str:
        parts = {
            "weights and optimiser": self.states, "reference": self.reference, "activations": self.activations,
            "logits": self.logits, "generation": self.generation,
        }  # fmt: skip
        listed = ", ".join(f"{name} {size / GB:.1f}" for name, size in parts.items() if size)
        return f"about {self.total / GB:.1f} GB on each GPU ({listed})"


def estimate(shape: Shape, settings: Optim, *, weight_bytes: int = 2, checkpointing: bool = True) -> Estimate:
    """
    Args:
        weight_bytes: of one weight as it is loaded; counts below adapters.
    """
    processes, p = settings.processes, shape.parameters
    spread = processes if settings.sharding != "ddp" else 1
    tokens = settings.micro_batch * _row(settings)
    if settings.lora:
        states = weight_bytes * p / spread + 16 * settings.lora.r * shape.lora
    else:
        states = 16 * p / spread
        states += 0 if spread > 1 else 2 * p + (4 * p if processes > 1 else 0)
    if spread > 1:
        states += 8 * shape.block + 10 * shape.head
    between, inside = 4 * tokens * shape.hidden, 2 * tokens * (16 * shape.hidden + 2 * shape.keys + 6 * shape.inner)
    tile = min(tokens, _TILE[0]) * min(shape.vocabulary, _TILE[1])
    return Estimate(
        states=states,
        reference=4 * p / spread if _has_reference(settings) else 0,
        activations=between * shape.layers + inside if checkpointing else inside * shape.layers,
        logits=8 * tile + (0 if settings.lora else 4 * shape.head),
        generation=_generation(shape, settings) if isinstance(settings, Grpo) else 0,
    )


def _row(settings: Optim) -> int:
    """Tokens of the longest row that is trained on; of a pair, both."""
    if isinstance(settings, Grpo):
        return settings.max_prompt + settings.max_completion
    assert isinstance(settings, Sft | Dpo)
    return settings.max_length * (2 if isinstance(settings, Dpo) else 1)


def _has_reference(settings: Optim) -> bool:
    return not settings.lora and (isinstance(settings, Dpo) or (isinstance(settings, Grpo) and settings.beta > 0))


def _generation(shape: Shape, settings: Grpo) -> float:
    together = min(_TOGETHER, settings.batch // settings.processes)
    return 4 * shape.layers * shape.keys * together * _row(settings) + 12 * together * shape.vocabulary
