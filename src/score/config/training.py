"""The config's `training`: settings of SFT, RL and DPO, by name."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from score.config.section import Count, Name, Section, Share


class Lora(Section):
    r: Count = 16
    alpha: Count = 32
    dropout: Share = 0.0
    merge: bool = Field(True, description="put the trained adapter into the weights; false: keep it as an adapter")


class Optim(Section):
    """What SFT and RL share."""

    lr: float = Field(gt=0)
    optimizer: Literal["adamw", "muon"] = "adamw"
    batch: Count = Field(description="sequences per update, of all processes together")
    micro_batch: Count = Field(description="sequences per forward pass and device")
    weight_decay: float = Field(0.0, ge=0)
    warmup: Share = 0.0
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    grad_clip: float = Field(1.0, gt=0)
    lora: Lora | None = Field(None, description="None: full fine-tuning")
    checkpointing: bool | None = Field(
        None, description="compute activations once more in the backward pass, for memory; null: on CUDA"
    )
    save_every: Count = Field(50, description="updates between checkpoints")
    keep: Count = Field(
        2, description="how many checkpoints stay while it trains: the last, the best (if it looks), then earlier ones"
    )
    eval_every: int = Field(0, ge=0, description="updates between looks at the held-out questions; 0: none")
    select: Literal["last", "best"] = Field(
        "last", description="the model of a run: after its last update, or where it solved most held-out questions"
    )
    gpus: Count | None = Field(
        None, description="GPUs on each node, a process on each; null: one, if the model takes any"
    )
    nodes: Count = Field(1, description="nodes that train together (docs/CLUSTER.md)")
    sharding: Literal["ddp", "fsdp2", "zero3"] = Field(
        "fsdp2", description="several processes: a whole model in each, or its parts spread over them"
    )

    @property
    def processes(self) -> int:
        """How many train together."""
        return (self.gpus or 1) * self.nodes

    @model_validator(mode="after")
    def _looks_before_it_selects(self) -> Optim:
        if self.select == "best" and not self.eval_every:
            raise ValueError("select: best needs looks at the held-out questions; set eval_every, or select: last")
        return self


class Sft(Optim):
    epochs: float = Field(3, gt=0)
    max_length: Count = Field(4096, description="tokens; longer rows are dropped and counted, never cut")
    group_by_length: bool = Field(False, description="rows of like length share an update: less padding")


class Grpo(Optim):
    """`batch` counts rollouts per update; group size G = `generations`."""

    updates: Count
    generations: Count = 16
    max_prompt: Count = Field(2048, description="tokens of the verified prefix; longer rows are dropped and counted")
    max_completion: Count = Field(4096, description="tokens of all turns after the prefix, observations included")
    turn_tokens: Count = Field(1024, description="new tokens of one turn")
    temperature: float = Field(1.0, gt=0)
    beta: float = Field(0.0, ge=0, description="KL coefficient to the starting model")
    epsilon: float = Field(0.2, gt=0)
    loss_type: Literal["grpo", "dapo", "dr_grpo", "bnpo"] = "dapo"
    scale_rewards: Literal["group", "batch", "none"] = "group"
    negative_weight: float = Field(1.0, ge=0, description="factor on negative advantages")
    avoid_requires: Literal["difference", "well_formed"] = Field(
        "difference", description="what earns 0.1: any step unlike the error, or one that also parses and runs"
    )
    mask_truncated: bool = Field(False, description="learn nothing from episodes that a token limit cut")
    sampler: Literal["transformers", "vllm_colocate", "vllm_server"] = Field(
        "transformers", description="who samples: the trainer's own process, a vLLM in it, or a vLLM server"
    )
    sampler_url: str | None = Field(None, description="vllm_server: base URL of the server, as TRL wants it started")
    sampler_memory: float = Field(0.3, gt=0, le=1, description="vllm_colocate: its share of a GPU's memory")
    importance: Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = Field(
        "sequence_mask", description="vllm: correction for where its probabilities are not the trainer's"
    )
    importance_max: float = Field(3.0, gt=1, description="vllm: ratio at which the correction truncates or masks")
    max_gap: float | None = Field(
        0.5, gt=0, description="nats between sampler's and trainer's log-probabilities that stop the run; null: any"
    )
    max_flat: int = Field(
        50, ge=0, description="updates in a row without a group whose rewards differ that stop the run; 0: any number"
    )

    @model_validator(mode="after")
    def _names_its_server(self) -> Grpo:
        if (self.sampler == "vllm_server") != (self.sampler_url is not None):
            raise ValueError("sampler_url is given with sampler: vllm_server, and only then")
        return self


class Dpo(Optim):
    """Preference pairs at the key step: the teacher's fix preferred to the student's error, after the same prefix."""

    epochs: float = Field(1, gt=0)
    beta: float = Field(0.1, gt=0, description="strength of the pull towards the starting model")
    max_length: Count = Field(4096, description="tokens of prefix and turn; longer pairs are dropped and counted")


class Settings(Section):
    """Named training settings; an agent picks one by name."""

    sft: dict[Name, Sft] = Field(default_factory=dict)
    grpo: dict[Name, Grpo] = Field(default_factory=dict)
    dpo: dict[Name, Dpo] = Field(default_factory=dict)

    def of(self, method: str, name: str) -> Optim:
        """The settings by which an agent is trained."""
        return getattr(self, method)[name]
