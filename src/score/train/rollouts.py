"""RL's prompts become episodes, and episodes become token ids: no trainer in here.

Token ids are those that were sampled: the verified prefix is prompt, the generated turns are trained on, and whatever
lies between them (observations, template) is masked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from score.agent.drivers import run_episodes
from score.agent.episode import Episode, forced_prefix
from score.agent.protocol import trajectory_messages
from score.agent.sessions import branched
from score.config.schema import Protocol as Limits
from score.config.schema import Sampling
from score.correct.sets import KeyStep
from score.engine.base import BatchEngine
from score.engine.codec import ChatCodec, Segment
from score.errors import InfrastructureError
from score.records import StopReason, Trajectory
from score.sandbox.base import SandboxPool, Tools

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


@dataclass(frozen=True)
class Rollouts:
    """How a trainer's prompts become episodes and rewards.

    `key_steps` are the training prompts, which the dataset's column `index` points into. With `short_horizon` an
    episode starts at the verified prefix, else at the question. `context`: tokens of a whole conversation.
    Of several processes the main one alone has a `reward`.
    """

    codec: ChatCodec
    key_steps: Sequence[KeyStep]
    reward: Reward | None
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
