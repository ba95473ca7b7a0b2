"""What a benchmark is to the harness: a name, a size, a metric and the published files it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FOLDER = "inference/inference_data"
"""Where the published test files lie below the published project folder."""


@dataclass(frozen=True)
class Benchmark:
    """One benchmark of the paper or of the micro-world.

    `n` is the published number of questions, which is asserted. `metric` names a rule of `score.evaluate.metrics`;
    "judge" means that a model decides where no rule can. `files` are paths below the published project folder; where
    they stand for difficulty levels, `levels` has one number per file. `version` goes up when the same answers could
    get other scores.
    """

    name: str
    label: str
    group: Literal["math", "facts", "deep"]
    n: int
    metric: Literal["math", "f1", "judge", "exact"]
    files: tuple[str, ...] = ()
    levels: tuple[int, ...] = ()
    world: Literal["real", "micro"] = "real"
    version: int = 1
