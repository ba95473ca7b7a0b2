"""Who samples from the trainer's current weights: the trainer's own process, or, in RL, a vLLM."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel

from score.config.schema import Sampling
from score.config.training import Grpo
from score.engine.base import Completion, Request
from score.engine.codec import ChatCodec
from score.engine.kept import Prompt
from score.engine.transformers import TransformersEngine
from score.errors import ScoreError
from score.train import ranks

if TYPE_CHECKING:
    from trl import GRPOTrainer

CHUNK = 64
"""Conversations that are decoded together beside the trainer's own memory."""


def sampling(settings: Grpo) -> Sampling:
    """How rollouts are sampled: from the whole distribution, whose log-probabilities the loss takes."""
    return Sampling(temperature=settings.temperature, top_p=1.0, top_k=0, max_new_tokens=settings.turn_tokens)


def arguments(settings: Grpo) -> dict[str, Any]:
    """TRL's words for who samples, and for how the loss corrects a sampler that differs from the trainer."""
    if settings.sampler == "transformers":
        return {}
    if importlib.util.find_spec("vllm") is None:
        raise ScoreError(
            f"sampler {settings.sampler} needs vLLM beside TRL, which is not in this environment; use the CUDA image "
            "`train`, or sampler: transformers"
        )
    server = {"vllm_server_base_url": settings.sampler_url} if settings.sampler == "vllm_server" else {}
    return {
        "use_vllm": True,
        "vllm_mode": settings.sampler.removeprefix("vllm_"),
        "vllm_gpu_memory_utilization": settings.sampler_memory,
        "vllm_max_model_length": settings.max_prompt + settings.max_completion,
        "vllm_enable_sleep_mode": settings.sampler == "vllm_colocate",  # it and the optimiser take turns in the memory
        "vllm_importance_sampling_correction": settings.importance != "none",
        **({} if settings.importance == "none" else {"vllm_importance_sampling_mode": settings.importance}),
        "vllm_importance_sampling_clip_max": settings.importance_max,
        **server,
    }


class TrainerEngine(TransformersEngine):
    """The engine of every other stage over the model in training, decoding in rounds with the processes that hold the
    rest of it. The model stays in the mode, training or not, that it is in; after an update it takes a new engine."""

    def __init__(self, model: PreTrainedModel, codec: ChatCodec, *, context: int, batch: int = CHUNK) -> None:
        training = model.training
        super().__init__(model, codec, context=context, batch=min(batch, CHUNK), logprobs=True)
        model.train(training)
        idle = Sampling(temperature=0.0, max_new_tokens=1)
        self.rounds = ranks.Rounds(lambda: super(TrainerEngine, self)._decode([Prompt((codec.eos_id,))], idle, [0]))

    def _decode(
        self, prompts: list[Prompt], sampling: Sampling, seeds: list[int]
    ) -> list[tuple[list[int], list[float]]]:
        self.rounds.enter()
        return super()._decode(prompts, sampling, seeds)


class VllmEngine:
    """A `BatchEngine` over the vLLM that TRL runs in this process or reaches by HTTP, with the current weights.

    How its tokens came about is its own affair: a request's seed says nothing to it.
    """

    def __init__(self, trainer: GRPOTrainer, codec: ChatCodec, *, batch: int, turn_tokens: int, context: int) -> None:
        self.trainer, self.codec, self.batch, self.longest = trainer, codec, batch, context - turn_tokens
        trainer.vllm_generation.max_completion_length = turn_tokens

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        prompts = [self.codec.prompt(request.messages) for request in requests]
        completions = [Completion("", "context", prompt_tokens=len(ids)) for ids in prompts]
        fitting = [i for i, ids in enumerate(prompts) if len(ids) <= self.longest]
        if not fitting:
            return completions
        sampled, logprobs = self.trainer._generate_single_turn([prompts[i] for i in fitting], None, {}, 1)
        for i, ids, noted in zip(fitting, sampled, logprobs, strict=True):
            completions[i] = self._completion(ids, noted, len(prompts[i]))
        return completions

    def _completion(self, ids: list[int], logprobs: list[float], prompt_tokens: int) -> Completion:
        ended = bool(ids) and ids[-1] == self.codec.eos_id
        turn = tuple(ids[:-1] if ended else ids)
        return Completion(
            text=self.codec.decode(turn),
            finish="stop" if ended else "length",
            token_ids=turn,
            prompt_tokens=prompt_tokens,
            completion_tokens=len(ids),
            logprobs=tuple(logprobs[: len(turn)]),
        )
