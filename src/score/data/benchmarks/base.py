"""What a benchmark is to the harness: a name, a size, a metric and the published files it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FOLDER = "inference/inference_data"
"""Where the published test files lie below the published project folder."""


@dataclass(frozen=True)
class Benchmark:
    """One benchmark of the paper or of a micro-world.

    `n` is the published number of questions, which is asserted. `metric` names a rule of `score.evaluate.metrics`;
    "judge" means that a model decides where no rule can, "own" that each question says which rule it is. `files` are
    paths below the published project folder; where they stand for difficulty levels, `levels` has one number per file.
    `version` goes up when the same answers could get other scores.
    """

    name: str
    label: str
    group: Literal["math", "facts", "deep", "hard"]
    n: int
    metric: Literal["math", "f1", "judge", "exact", "own"]
    files: tuple[str, ...] = ()
    levels: tuple[int, ...] = ()
    world: Literal["published", "micro", "micro_long"] = "published"
    version: int = 1
