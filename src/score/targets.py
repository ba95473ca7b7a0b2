"""What is wrong with a target that no rule has."""

from __future__ import annotations

import typing
from collections.abc import Iterable

from score.config import Config
from score.config.mistakes import nearest
from score.config.schema import Ablation

NEEDS = {
    **{f"table{n}": f"agents and benchmarks of table {n}" for n in (1, 2, 3)},
    **dict.fromkeys(("figure3a", "figure3b", "learning_curves"), "an agent with `ablation: full`"),
    **dict.fromkeys(("horizon", "gradient_variance", "theory"), "a generated world and an agent with `ablation: full`"),
    "teacher_tokens": "an agent with `ablation: full` and demonstrations that are not the published ones",
    "teacher_quality": "agents with `data: corrections` whose oracles differ in accuracy",
    "reproduction": "published questions and an agent with `ablation: full`",
    "baselines": "an agent with `baseline: true`",
}
"""Targets that exist only where the config has something for them."""


def unknown(config: Config, target: str, targets: Iterable[str]) -> str:
    """Why a target is none of `targets`: this config has nothing for it, or it is a slip of the pen."""
    word = target.removeprefix("ablation_")
    if word != target and word in typing.get_args(Ablation):
        off = [agent.name for agent in config.agents if agent.ablation == word]
        why = f"its agent {off[0]!r} is switched off (`skip`)" if off else "no agent of the config is it"
        return f"target {target!r}: {why}"
    if target in NEEDS:
        return f"target {target!r}: it needs {NEEDS[target]}, which this config has not"
    return f"unknown target {target!r}; {nearest(target, targets)}"
