"""All contact with TRL's GRPOTrainer: our episodes as its rollouts, our rewards as its rewards (TRL.md sections 2 and 6).

The trainer's own generation is wrapped as a `BatchEngine`, so RL runs the very driver, state machine and parser of every
other stage. What goes back is token ids as sampled: the verified prefix is prompt, the generated turns are trained on, and
whatever lies between them (observations, template) is masked by `env_mask`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from trl import GRPOTrainer

from score.agent.drivers import run_episodes
from score.agent.episode import Episode, forced_prefix
from score.agent.protocol import trajectory_messages
from score.config.schema import Protocol as Limits
from score.config.schema import Sampling
from score.correct.sets import KeyStep
from score.engine.base import Completion, Request
from score.engine.codec import ChatCodec
from score.errors import InfrastructureError
from score.records import StopReason, Trajectory
from score.sandbox.base import SandboxPool, Tools

Reward = Callable[[Sequence[Trajectory], Sequence[KeyStep]], list[tuple[float, str]]]
"""(reward, tier) per rollout. Raises `InfrastructureError` rather than guess."""


@dataclass(frozen=True)
class TokenRow:
    """One rollout as TRL wants it: ids of the prompt, ids after it, and 1 where the model sampled the id."""

    prompt_ids: list[int]
    completion_ids: list[int]
    env_mask: list[int]


def token_row(episode: Episode, codec: ChatCodec, given: int) -> TokenRow:
    """The episode's ids, split after its first `given` assistant turns.

    The end token of a turn that ran into the token limit was never sampled, so it is masked.
    """
    segments = codec.segments(trajectory_messages(episode.trajectory()))
    prompt: list[int] = []
    completion: list[int] = []
    mask: list[int] = []
    turn = 0
    for segment in segments:
        if turn < given or (turn == given and not segment.assistant and not completion):
            prompt += segment.ids
        else:
            sampled = [int(segment.assistant)] * len(segment.ids)
            if segment.assistant and turn in episode.unfinished:
                sampled[-1] = 0
            completion += segment.ids
            mask += sampled
        turn += segment.assistant
    if not completion:  # the prefix alone fills the context; TRL needs at least one id
        completion, mask = [codec.eos_id], [0]
    return TokenRow(prompt, completion, mask)


class TrainerEngine:
    """A `BatchEngine` that samples from the trainer's current weights."""

    def __init__(self, trainer: GRPOTrainer, codec: ChatCodec, *, batch: int, context: int) -> None:
        self.trainer, self.codec, self.batch, self.context = trainer, codec, batch, context

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        prompts = [self.codec.prompt(request.messages) for request in requests]
        room = self.context - self.trainer.generation_config.max_new_tokens
        fitting = [i for i, ids in enumerate(prompts) if len(ids) <= room]
        completions = [Completion("", "context") for _ in prompts]
        if fitting:
            sampled, _ = self.trainer._generate_single_turn([prompts[i] for i in fitting], None, {}, 1)
            for i, ids in zip(fitting, sampled, strict=True):
                ended = bool(ids) and ids[-1] == self.codec.eos_id
                turn = tuple(ids[:-1] if ended else ids)
                finish = "stop" if ended else "length"
                completions[i] = Completion(self.codec.decode(turn), finish, turn, len(prompts[i]), len(ids))
        return completions


class AgentGRPO(GRPOTrainer):
    """GRPO whose rollouts are agent episodes from verified prefixes.

    Args:
        key_steps: the training prompts; the dataset's column `index` points into them.
        short_horizon: start at the verified prefix (True) or at the question (False).
        negative_weight: factor on negative advantages.
    """

    def __init__(
        self, *args, codec: ChatCodec, key_steps: Sequence[KeyStep], reward: Reward, pool: SandboxPool, tools: Tools,
        limits: Limits, short_horizon: bool, negative_weight: float, turn_tokens: int, context: int, **kwargs,
    ) -> None:  # fmt: skip
        super().__init__(*args, reward_funcs=[_given_reward], rollout_func=_roll, **kwargs)
        self.codec, self.key_steps, self.reward, self.pool, self.tools = codec, key_steps, reward, pool, tools
        self.limits, self.short_horizon, self.negative_weight = limits, short_horizon, negative_weight
        self.generation_config.max_new_tokens = turn_tokens
        self.engine = TrainerEngine(self, codec, batch=10**6, context=context)
        self.rows: list[dict] = []

    def _generate_and_score_completions(self, inputs):
        self.rows = inputs  # TRL hands rollouts the prompts alone; the other columns are read from here
        output = super()._generate_and_score_completions(inputs)
        advantages = output["advantages"]
        output["advantages"] = torch.where(advantages < 0, advantages * self.negative_weight, advantages)
        return output

    def roll(self, prompts: Sequence[object]) -> dict[str, list]:
        """One episode per row, in the rows' order. Raises `InfrastructureError` if any has no outcome."""
        if len(prompts) != len(self.rows):
            raise RuntimeError(f"{len(prompts)} prompts for {len(self.rows)} rows: this TRL version orders them otherwise")
        starts = [self.key_steps[row["index"]] for row in self.rows]
        prefixes = [forced_prefix(s.plan, s.prefix) if self.short_horizon else () for s in starts]
        episodes = [Episode(s.task, self.limits, seed=0, forced=p) for s, p in zip(starts, prefixes, strict=True)]
        run_episodes(episodes, self.engine, Sampling(), self.pool, self.tools)
        failed = [e.failure for e in episodes if e.stop == StopReason.INFRASTRUCTURE_ERROR]
        if failed:
            raise InfrastructureError(f"{len(failed)} of {len(episodes)} RL episodes have no outcome; the first: {failed[0]}")
        trajectories = [episode.trajectory() for episode in episodes]
        rewards = self.reward(trajectories, starts)
        rows = [token_row(e, self.codec, len(p)) for e, p in zip(episodes, prefixes, strict=True)]
        self._log_tiers([tier for _, tier in rewards], trajectories)
        return {
            "prompt_ids": [row.prompt_ids for row in rows],
            "completion_ids": [row.completion_ids for row in rows],
            "env_mask": [row.env_mask for row in rows],
            "logprobs": None,
            "episode_reward": [value for value, _ in rewards],
        }

    def _log_tiers(self, tiers: Sequence[str], trajectories: Sequence[Trajectory]) -> None:
        metrics = self._metrics["train"]
        for name in ("final", "key", "avoid", "none"):
            metrics[f"tier/{name}"].append(sum(tier == name for tier in tiers) / len(tiers))
        metrics["episode/steps"].append(sum(len(t.steps) for t in trajectories) / len(trajectories))
        metrics["episode/new_tokens"].append(sum(t.tokens["completion"] for t in trajectories))


def _roll(prompts: Sequence[object], trainer: AgentGRPO) -> dict[str, list]:
    return trainer.roll(prompts)


def _given_reward(episode_reward: list[float], **_: object) -> list[float]:
    """The reward was computed with the rollout, from its records; TRL's decoded text is not looked at."""
    return episode_reward
