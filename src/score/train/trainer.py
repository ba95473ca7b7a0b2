"""All contact with TRL's GRPOTrainer: our episodes as its rollouts, our rewards as its rewards.

The trainer's own generation is wrapped as a `BatchEngine`, so RL runs the very driver, state machine and parser of
every other stage. What goes back is token ids as sampled: the verified prefix is prompt, the generated turns are
trained on, and whatever lies between them (observations, template) is masked by `env_mask`. This leans on parts of TRL
that may change with any release; tests/train/test_grpo.py is the contract that an upgrade has to pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import TrainerCallback
from trl import GRPOTrainer

from score.agent.drivers import run_episodes
from score.agent.episode import Episode, forced_prefix
from score.agent.protocol import trajectory_messages
from score.agent.sessions import branched
from score.config.schema import Protocol as Limits
from score.config.schema import Sampling
from score.correct.sets import KeyStep
from score.engine.base import Completion, Request
from score.engine.codec import ChatCodec
from score.errors import InfrastructureError
from score.records import StopReason, Trajectory
from score.sandbox.base import SandboxPool, Tools
from score.train import ranks

Reward = Callable[[Sequence[Trajectory], Sequence[KeyStep]], list[tuple[float | None, str]]]
"""(reward, tier) per rollout; one without a reward takes no part in its group's step. Raises `InfrastructureError`
rather than guess."""


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
    """A `BatchEngine` that samples from the trainer's current weights, like lengths together."""

    CHUNK = 64

    def __init__(self, trainer: GRPOTrainer, codec: ChatCodec, *, batch: int, turn_tokens: int, context: int) -> None:
        self.trainer, self.codec, self.batch, self.longest = trainer, codec, batch, context - turn_tokens
        trainer.generation_config.max_new_tokens = turn_tokens
        self.rounds = ranks.Rounds(lambda: self._sampled([[codec.eos_id]]))

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        prompts = [self.codec.prompt(request.messages) for request in requests]
        completions = [Completion("", "context") for _ in prompts]
        fitting = sorted(
            (i for i, ids in enumerate(prompts) if len(ids) <= self.longest), key=lambda i: len(prompts[i])
        )
        for start in range(0, len(fitting), self.CHUNK):
            chunk = fitting[start : start + self.CHUNK]
            self.rounds.enter()
            for i, ids in zip(chunk, self._sampled([prompts[i] for i in chunk]), strict=True):
                completions[i] = self._completion(ids, len(prompts[i]))
        return completions

    def _sampled(self, prompts: list[list[int]]) -> list[list[int]]:
        return self.trainer._generate_single_turn(prompts, None, {}, 1)[0]

    def _completion(self, ids: list[int], prompt_tokens: int) -> Completion:
        ended = bool(ids) and ids[-1] == self.codec.eos_id
        turn = tuple(ids[:-1] if ended else ids)
        return Completion(self.codec.decode(turn), "stop" if ended else "length", turn, prompt_tokens, len(ids))


@dataclass(frozen=True)
class Rollouts:
    """How a trainer's prompts become episodes and rewards.

    `key_steps` are the training prompts, which the dataset's column `index` points into. With `short_horizon` an
    episode starts at the verified prefix, else at the question. Tokens: of one turn, and of a whole conversation.
    Of several processes the main one alone has a `reward`.
    """

    codec: ChatCodec
    key_steps: Sequence[KeyStep]
    reward: Reward | None
    pool: SandboxPool
    tools: Tools
    limits: Limits
    short_horizon: bool
    turn_tokens: int
    context: int

    def play(self, indexes: Sequence[int], engine: TrainerEngine) -> tuple[list[Episode], list[int]]:
        """One finished episode per index, and how many of its assistant turns were given.

        Raises `InfrastructureError` if any has no outcome.
        """
        starts = [self.key_steps[i] for i in indexes]
        prefixes = [forced_prefix(s.plan, s.prefix) if self.short_horizon else () for s in starts]
        episodes = [Episode(s.task, self.limits, seed=0, forced=p) for s, p in zip(starts, prefixes, strict=True)]
        with branched(episodes, self.pool, self.tools) as sessions:
            run_episodes(episodes, engine, Sampling(), self.pool, self.tools, sessions=sessions)
        failed = [e.failure for e in episodes if e.stop == StopReason.INFRASTRUCTURE_ERROR]
        if failed:
            raise InfrastructureError(
                f"{len(failed)} of {len(episodes)} RL episodes have no outcome; the first: {failed[0]}"
            )
        return episodes, [len(prefix) for prefix in prefixes]


class AgentGRPO(GRPOTrainer):
    """GRPO whose rollouts are agent episodes from verified prefixes; `negative_weight` scales negative advantages."""

    def __init__(self, *args, rollouts: Rollouts, negative_weight: float = 1.0, **kwargs) -> None:
        super().__init__(*args, reward_funcs=[_given_reward], rollout_func=_roll, **kwargs)
        self.rollouts, self.negative_weight = rollouts, negative_weight
        batch = self.args.generation_batch_size
        self.engine = TrainerEngine(
            self, rollouts.codec, batch=batch, turn_tokens=rollouts.turn_tokens, context=rollouts.context
        )
        self.rounds, self.rows = self.engine.rounds, []
        if ranks.sharding() == "fsdp2":
            for module in self.model.modules():  # so that transformers makes the processes' decoding equally long
                module._is_fsdp_managed_module = True
            self.add_callback(_FromTheRoot())

    def _generate_and_score_completions(self, inputs):
        self.rows = inputs  # TRL hands rollouts the prompts alone; the other columns are read from here
        output = super()._generate_and_score_completions(inputs)
        if "tool_mask" not in output:
            raise RuntimeError("the trainer dropped env_mask, so observations would be trained on")
        advantages = output["advantages"]
        output["advantages"] = torch.where(advantages < 0, advantages * self.negative_weight, advantages)
        return output

    def roll(self, prompts: Sequence[object]) -> dict[str, list]:
        """One episode per row, in the rows' order, as TRL wants it."""
        if len(prompts) != len(self.rows):
            raise RuntimeError(
                f"{len(prompts)} prompts for {len(self.rows)} rows: this TRL version orders them otherwise"
            )
        indexes = [row["index"] for row in self.rows]
        episodes, given = ranks.agreed(lambda: self._play(indexes))
        trajectories = [episode.trajectory() for episode in episodes]
        rewards = self._rewards(indexes, trajectories)
        rows = [token_row(episode, self.rollouts.codec, n) for episode, n in zip(episodes, given, strict=True)]
        values = [value for value, _ in rewards]
        return {
            "prompt_ids": [row.prompt_ids for row in rows],
            "completion_ids": [row.completion_ids for row in rows],
            # TRL leaves a rollout without reward out of mean and deviation, but would count its tokens and their KL.
            "env_mask": [
                [0] * len(row.env_mask) if value is None else row.env_mask
                for row, value in zip(rows, values, strict=True)
            ],
            "logprobs": None,
            "episode_reward": values,
        }

    def _play(self, indexes: Sequence[int]) -> tuple[list[Episode], list[int]]:
        with self.rounds:
            return self.rollouts.play(indexes, self.engine)

    def _rewards(self, indexes: Sequence[int], trajectories: Sequence[Trajectory]) -> list[tuple[float | None, str]]:
        """Of this process's rollouts; the main process computes and logs those of all, so that one asks the judge."""
        everyone = ranks.gathered(list(zip(indexes, trajectories, strict=True)))
        indexes_of_all, trajectories_of_all = zip(*everyone, strict=True)
        key_steps = [self.rollouts.key_steps[i] for i in indexes_of_all]
        rewards = ranks.from_main(lambda: self.rollouts.reward(trajectories_of_all, key_steps))
        self._log_episodes([tier for _, tier in rewards], trajectories_of_all)
        return rewards[ranks.number() * len(indexes) :][: len(indexes)]

    def _log_episodes(self, tiers: Sequence[str], trajectories: Sequence[Trajectory]) -> None:
        metrics = self._metrics["train"]
        for name in ("final", "key", "avoid", "none", "undecided"):
            metrics[f"tier/{name}"].append(sum(tier == name for tier in tiers) / len(tiers))
        metrics["episode/steps"].append(sum(len(t.steps) for t in trajectories) / len(trajectories))
        metrics["episode/new_tokens"].append(sum(t.tokens["completion"] for t in trajectories))


class _FromTheRoot(TrainerCallback):
    """FSDP2 wants its first forward pass to be the whole model's, and generation with adapters begins further in."""

    def on_train_begin(self, args, state, control, model, **kwargs) -> None:
        with torch.no_grad():
            model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=args.device))


def _roll(prompts: Sequence[object], trainer: AgentGRPO) -> dict[str, list]:
    return trainer.roll(prompts)


def _given_reward(episode_reward: list[float | None], **_: object) -> list[float | None]:
    """The reward was computed with the rollout, from its records; TRL's decoded text is not looked at."""
    return episode_reward
