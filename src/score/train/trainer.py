"""All contact with TRL's GRPOTrainer: our episodes as its rollouts, our rewards as its rewards.

RL samples with the engine, driver, state machine and parser of every other stage. What goes back is token ids as
sampled: the verified prefix is prompt, the generated turns are trained on, and whatever lies between them
(observations, template) is masked by `env_mask`. An episode's random stream follows from the run's seed, the update and
its place in the batch, so neither a restart nor the number of processes changes what is sampled. This leans on parts of
TRL that may change with any release; tests/train/test_grpo.py is the contract that an upgrade has to pass.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional
from torch.utils.data import Sampler
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation

from score.agent.drivers import run_episodes
from score.agent.episode import Episode, forced_prefix
from score.agent.protocol import trajectory_messages
from score.agent.sessions import branched
from score.config.schema import Protocol as Limits
from score.config.schema import Sampling
from score.correct.sets import KeyStep
from score.engine.base import BatchEngine, Completion, Request
from score.engine.codec import ChatCodec, Segment
from score.engine.transformers import TransformersEngine
from score.errors import InfrastructureError, ScoreError
from score.records import StopReason, Trajectory, derive_seed
from score.sandbox.base import SandboxPool, Tools
from score.train import monitor
from score.train.order import PerEpoch

CHUNK = 64
"""Conversations that are decoded together beside the trainer's own memory."""

Reward = Callable[[Sequence[Trajectory], Sequence[KeyStep]], list[tuple[float | None, str]]]
"""(reward, tier) per rollout; one without a reward takes no part in its group's step. Raises `InfrastructureError`
rather than guess."""


@dataclass(frozen=True)
class TokenRow:
    """One rollout as TRL wants it: ids of the prompt, ids after it, and 1 where the model sampled the id.

    `logprobs` are the sampler's: NaN where it does not tell (end tokens), 0 where nothing was sampled.
    """

    prompt_ids: list[int]
    completion_ids: list[int]
    env_mask: list[int]
    logprobs: list[float]


def token_row(episode: Episode, codec: ChatCodec, given: int) -> TokenRow:
    """The episode's ids, split after its first `given` assistant turns.

    The end token of a turn that ran into the token limit was never sampled, so it is masked.
    """
    trajectory = episode.trajectory()
    told = [trajectory.plan_logprobs, *(step.logprobs for step in trajectory.steps)]
    prompt: list[int] = []
    completion: list[int] = []
    mask: list[int] = []
    logprobs: list[float] = []
    turn = 0
    for segment in codec.segments(trajectory_messages(trajectory)):
        if turn < given or (turn == given and not segment.assistant and not completion):
            prompt += segment.ids
        else:
            sampled = [int(segment.assistant)] * len(segment.ids)
            if segment.assistant and turn in episode.unfinished:
                sampled[-1] = 0
            completion += segment.ids
            mask += sampled
            logprobs += _logprobs(segment, told[turn]) if segment.assistant else [0.0] * len(segment.ids)
        turn += segment.assistant
    if not completion:  # the prefix alone fills the context; TRL needs at least one id
        completion, mask, logprobs = [codec.eos_id], [0], [0.0]
    return TokenRow(prompt, completion, mask, logprobs)


def _logprobs(turn: Segment, told: Sequence[float] | None) -> list[float]:
    known = told if told is not None and len(told) == len(turn.ids) - 1 else [math.nan] * (len(turn.ids) - 1)
    return [*known, math.nan]


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


@dataclass(frozen=True)
class Rollouts:
    """How a trainer's prompts become episodes and rewards.

    `key_steps` are the training prompts, which the dataset's column `index` points into. With `short_horizon` an
    episode starts at the verified prefix, else at the question. `context`: tokens of a whole conversation.
    """

    codec: ChatCodec
    key_steps: Sequence[KeyStep]
    reward: Reward
    pool: SandboxPool
    tools: Tools
    limits: Limits
    short_horizon: bool
    sampling: Sampling
    context: int

    def play(
        self, indexes: Sequence[int], engine: BatchEngine, seeds: Sequence[int]
    ) -> tuple[list[Episode], list[int]]:
        """One finished episode per index and seed, and how many of its assistant turns were given.

        Raises `InfrastructureError` if any has no outcome.
        """
        starts = [self.key_steps[i] for i in indexes]
        prefixes = [forced_prefix(s.plan, s.prefix) if self.short_horizon else () for s in starts]
        episodes = [
            Episode(start.task, self.limits, seed=seed, forced=prefix)
            for start, seed, prefix in zip(starts, seeds, prefixes, strict=True)
        ]
        with branched(episodes, self.pool, self.tools) as sessions:
            run_episodes(episodes, engine, self.sampling, self.pool, self.tools, sessions=sessions)
        failed = [e.failure for e in episodes if e.stop == StopReason.INFRASTRUCTURE_ERROR]
        if failed:
            raise InfrastructureError(
                f"{len(failed)} of {len(episodes)} RL episodes have no outcome; the first: {failed[0]}"
            )
        return episodes, [len(prefix) for prefix in prefixes]


class AgentGRPO(GRPOTrainer):
    """GRPO whose rollouts are agent episodes from verified prefixes.

    Args:
        negative_weight: factor on negative advantages.
        mask_truncated: learn nothing from episodes that a token limit cut; they still count in their group's mean.
        counted: wraps the engine, to count what is asked of it.
    """

    def __init__(
        self, *args, rollouts: Rollouts, negative_weight: float = 1.0, mask_truncated: bool = False,
        counted: Callable[[BatchEngine], BatchEngine] = lambda engine: engine, **kwargs,
    ) -> None:  # fmt: skip
        super().__init__(*args, reward_funcs=[_given_reward], rollout_func=_roll, **kwargs)
        self.rollouts, self.negative_weight, self.mask_truncated = rollouts, negative_weight, mask_truncated
        self.engine = counted(self._new_engine())
        self.rows: list[dict] = []
        self._logps = torch.empty(0)  # [B, T] of the last forward pass

    def _new_engine(self) -> BatchEngine:
        codec, context = self.rollouts.codec, self.rollouts.context
        if self.use_vllm:
            batch, limit = self.args.generation_batch_size, self.rollouts.sampling.max_new_tokens
            return VllmEngine(self, codec, batch=batch, turn_tokens=limit, context=context)
        model = self.accelerator.unwrap_model(self.model)
        engine = TransformersEngine(model, codec, context=context, batch=CHUNK, logprobs=True)
        model.train()
        return engine

    @contextlib.contextmanager
    def whole_weights(self) -> Iterator[None]:
        """All weights on this process and no dropout, for the time of the rollouts; a collective operation.

        Within it processes may sample as many turns as each of them needs: no other one is waited for.
        """
        if self.use_vllm:
            yield
            return
        checkpointing = self.args.gradient_checkpointing_kwargs
        with unwrap_model_for_generation(
            self.model_wrapped, self.accelerator, gradient_checkpointing_kwargs=checkpointing
        ) as model:
            model.eval()
            yield
        model.train()

    def _get_train_sampler(self, dataset=None) -> Sampler:
        return PerEpoch(super()._get_train_sampler(dataset), self)

    def _generate_and_score_completions(self, inputs):
        self.rows = inputs  # TRL hands rollouts the prompts alone; the other columns are read from here
        output = super()._generate_and_score_completions(inputs)
        if "tool_mask" not in output:
            raise RuntimeError("the trainer dropped env_mask, so observations would be trained on")
        advantages = output["advantages"]
        output["advantages"] = torch.where(advantages < 0, advantages * self.negative_weight, advantages)
        return output

    def roll(self, prompts: Sequence[object]) -> dict[str, list]:
        """One episode per row, in the rows' order, as TRL wants it. Raises `ScoreError` if a reward is no number."""
        if len(prompts) != len(self.rows):
            raise RuntimeError(
                f"{len(prompts)} prompts for {len(self.rows)} rows: this TRL version orders them otherwise"
            )
        indexes = [row["index"] for row in self.rows]
        with self.whole_weights():
            episodes, given = self.rollouts.play(indexes, self.engine, self._seeds(len(indexes)))
        trajectories = [episode.trajectory() for episode in episodes]
        rewards = self.rollouts.reward(trajectories, [self.rollouts.key_steps[i] for i in indexes])
        values = [value for value, _ in rewards]
        if bad := [value for value in values if value is not None and not math.isfinite(value)]:
            raise ScoreError(f"{len(bad)} of {len(values)} rewards are {bad[0]}; nothing is learned from such a batch")
        rows = [token_row(episode, self.rollouts.codec, n) for episode, n in zip(episodes, given, strict=True)]
        cut = [self.mask_truncated and monitor.cut(trajectory) for trajectory in trajectories]
        metrics = monitor.of_episodes([tier for _, tier in rewards], trajectories)
        self._log(metrics | {monitor.TOKENS: metrics[monitor.TOKENS] * self.accelerator.num_processes})
        return {
            "prompt_ids": [row.prompt_ids for row in rows],
            "completion_ids": [row.completion_ids for row in rows],
            # TRL leaves a rollout without reward out of mean and deviation, but would count its tokens and their KL.
            "env_mask": [
                [0] * len(row.env_mask) if value is None or truncated else row.env_mask
                for row, value, truncated in zip(rows, values, cut, strict=True)
            ],
            "logprobs": [row.logprobs for row in rows],
            "episode_reward": values,
        }

    def _seeds(self, count: int) -> list[int]:
        """Of this update's episodes on this process: a place in the whole batch has the same one on any number."""
        first = self.accelerator.process_index * count
        run, update = self.args.seed, self.state.global_step
        return [derive_seed("rollout", run, update, first + i) for i in range(count)]

    def _prepare_inputs(self, generation_batch):
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        # Like lengths into one forward pass: the same gradient where a loss adds up over an update, as BNPO's does not.
        if self.model.training and self._buffered_inputs is not before and self.loss_type != "bnpo":
            self._buffered_inputs = by_length(self._buffered_inputs)
            inputs = self._buffered_inputs[self._step % self.args.steps_per_generation]
        return inputs

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, **kwargs
    ):
        """TRL's, but without columns that are padding in every row of a forward pass: they cost as much as text."""
        size, found = batch_size or len(input_ids), []
        for ids, mask in zip(input_ids.split(size), attention_mask.split(size), strict=True):
            used = mask.any(dim=0).nonzero().flatten()
            columns, beyond = slice(int(used[0]), int(used[-1]) + 1), mask.shape[1] - int(used[-1]) - 1
            part = super()._get_per_token_logps_and_entropies(
                model, ids[:, columns], mask[:, columns], logits_to_keep - beyond, **kwargs
            )
            found.append([value if value is None else functional.pad(value, (0, beyond)) for value in part[:2]])
        logps, entropies = (torch.cat(values) if values[0] is not None else None for values in zip(*found, strict=True))
        self._logps = logps.detach()
        return logps, entropies, None

    def _compute_loss(self, model, inputs):
        loss = super()._compute_loss(model, inputs)
        sampled = (inputs["completion_mask"] * inputs["tool_mask"]).bool()
        gap = (self._logps - inputs["sampling_per_token_logps"]).abs()[sampled]
        self._log({"sampling/gap": gap.nanmean().item()})
        return loss

    def _log(self, values: dict[str, float]) -> None:
        """Adds the mean over processes to what this update's row of the log averages; NaN where there is no value."""
        local = torch.tensor([list(values.values())], dtype=torch.float64, device=self.accelerator.device)
        for name, value in zip(values, self.accelerator.gather(local).nanmean(dim=0).tolist(), strict=True):
            if not math.isnan(value):
                self._metrics["train"][name].append(value)


def by_length(batches: Sequence[dict[str, torch.Tensor | None]]) -> list[dict[str, torch.Tensor | None]]:
    """The same rows in as many batches, those of like length together."""
    whole = {name: value for name, value in batches[0].items() if value is None or value.ndim == 0}
    rows = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0] if name not in whole}
    order = (rows["prompt_mask"].sum(dim=1) + rows["completion_mask"].sum(dim=1)).argsort()
    return [
        whole | {name: value[places] for name, value in rows.items()}
        for places in order.split(len(order) // len(batches))
    ]


def _roll(prompts: Sequence[object], trainer: AgentGRPO) -> dict[str, list]:
    return trainer.roll(prompts)


def _given_reward(episode_reward: list[float | None], **_: object) -> list[float | None]:
    """The reward was computed with the rollout, from its records; TRL's decoded text is not looked at."""
    return episode_reward
