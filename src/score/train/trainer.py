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
import warnings
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional
from torch.utils.data import Sampler
from trl import GRPOTrainer

from score.agent.episode import Episode
from score.engine.base import BatchEngine
from score.errors import ScoreError
from score.records import Trajectory, derive_seed
from score.train import monitor, ranks
from score.train.decoding import decoding, ready_to_decode
from score.train.order import PerEpoch
from score.train.rollouts import Rollouts, token_row
from score.train.samplers import TrainerEngine, VllmEngine

# TRL's own affairs, told at each update: own rollouts are experimental; it reads a name that transformers will drop.
warnings.filterwarnings("ignore", message="You are using 'rollout_func'", category=UserWarning)
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)


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
        self.counted = counted
        self.rows: list[dict] = []
        self._logps = torch.empty(0)  # [B, T] of the last forward pass
        ready_to_decode(self)

    def _new_engine(self) -> BatchEngine:
        codec, context = self.rollouts.codec, self.rollouts.context
        if self.use_vllm:
            batch, limit = self.args.generation_batch_size, self.rollouts.sampling.max_new_tokens
            return VllmEngine(self, codec, batch=batch, turn_tokens=limit, context=context)
        return TrainerEngine(self.accelerator.unwrap_model(self.model), codec, context=context)

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
        with contextlib.nullcontext() if self.use_vllm else decoding(self):
            episodes, given = ranks.agreed(lambda: self._play(indexes))
        trajectories = [episode.trajectory() for episode in episodes]
        values = self._rewards(indexes, trajectories)
        rows = [token_row(episode, self.rollouts.codec, n) for episode, n in zip(episodes, given, strict=True)]
        cut = [self.mask_truncated and monitor.cut(trajectory) for trajectory in trajectories]
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

    def _play(self, indexes: Sequence[int]) -> tuple[list[Episode], list[int]]:
        engine = self._new_engine()  # for these weights
        with getattr(engine, "rounds", contextlib.nullcontext()):
            return self.rollouts.play(indexes, self.counted(engine), self._seeds(len(indexes)))

    def _rewards(self, indexes: Sequence[int], trajectories: Sequence[Trajectory]) -> list[float | None]:
        """Of this process's rollouts; the main process computes those of all, so that one asks the judge."""
        everyone = ranks.gathered(list(zip(indexes, trajectories, strict=True)))
        indexes_of_all, trajectories_of_all = zip(*everyone, strict=True)
        key_steps = [self.rollouts.key_steps[i] for i in indexes_of_all]
        rewards = ranks.from_main(lambda: self.rollouts.reward(trajectories_of_all, key_steps))
        values = [value for value, _ in rewards]
        if bad := [value for value in values if value is not None and not math.isfinite(value)]:
            raise ScoreError(f"{len(bad)} of {len(values)} rewards are {bad[0]}; nothing is learned from such a batch")
        self._log(monitor.of_episodes([tier for _, tier in rewards], trajectories_of_all))
        return values[ranks.number() * len(indexes) :][: len(indexes)]

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
