"""What an RL run logs of its episodes at every update, and when a training run is stopped for its own good."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from transformers import TrainerCallback

from score.errors import ScoreError
from score.records import StopReason, Trajectory

TIERS = ("final", "key", "avoid", "none", "undecided")
TOKENS = "episode/new_tokens"
FLAT = "frac_reward_zero_std"
GAP = "sampling/gap"


def cut(trajectory: Trajectory) -> bool:
    """Whether a token limit cut the conversation or one of its turns."""
    return trajectory.stop is StopReason.CONTEXT_OVERFLOW or any(s.error == "truncated" for s in trajectory.steps)


def of_episodes(tiers: Sequence[str], trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Of one update's episodes: shares of the reward's tiers and of cut ones, mean steps and errors, new tokens."""

    def errors(*kinds: str) -> float:
        return fmean(sum(step.error in kinds for step in t.steps) for t in trajectories)

    return {
        **{f"tier/{tier}": tiers.count(tier) / len(tiers) for tier in TIERS},
        "episode/steps": fmean(len(t.steps) for t in trajectories),
        "episode/tool_errors": errors("exception", "timeout"),
        "episode/malformed": errors("parse_error"),
        "episode/truncated": fmean(map(cut, trajectories)),
        "episode/answered": fmean(t.stop is StopReason.ANSWERED for t in trajectories),
        TOKENS: sum(t.tokens["completion"] for t in trajectories),
    }


def trouble(history: Sequence[Mapping[str, Any]], *, max_gap: float | None, max_flat: int) -> str | None:
    """Why a run should not go on after the last of these log rows, and the mend; None if it may.

    Args:
        max_gap: of log-probabilities between sampler and trainer, mean over tokens, in nats.
        max_flat: updates in a row in which no group's rewards differ; 0: any number.
    """
    last = history[-1]
    for name in ("loss", "grad_norm"):
        if not math.isfinite(float(last.get(name, 0.0))):
            return f"{name} is {last[name]}; lower the learning rate, or look at the batch before"
    if max_gap is not None and last.get(GAP, 0.0) > max_gap:
        return (
            f"the sampler's log-probabilities are {last[GAP]:.3g} nats from the trainer's, more than max_gap "
            f"{max_gap:g}; they do not hold the same weights, or not in the same precision"
        )
    flat = [row[FLAT] for row in history if FLAT in row][-max_flat:] if max_flat else []
    if flat and len(flat) == max_flat and min(flat) >= 1:
        return (
            f"in {max_flat} updates no group had rewards that differ (the last mean reward: {last['reward']:.3g}), so "
            "nothing is learned; the tasks are too hard or too easy for it, or raise max_flat"
        )
    return None


class Guard(TrainerCallback):
    """Stops a run with the reason (`ScoreError`), before anything of that update is saved."""

    def __init__(self, *, max_gap: float | None = None, max_flat: int = 0) -> None:
        self.max_gap, self.max_flat = max_gap, max_flat

    def on_log(self, args, state, control, **kwargs) -> None:
        reason = trouble(state.log_history, max_gap=self.max_gap, max_flat=self.max_flat)
        if reason is not None:
            raise ScoreError(f"update {state.global_step}: {reason}. The last checkpoint is in {args.output_dir}")
