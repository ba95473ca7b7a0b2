"""Intervals for shares and averages. Seeded and vectorised; knows nothing of files or tables.

Scores of one benchmark are an array [Q] over questions, each already averaged over seeds: the seeds of a question are
not independent of each other, so questions are resampled and their seeds stay together. The intervals say what other
questions would have done; they do not contain the variance between training runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """An estimate with a confidence interval."""

    mean: float
    low: float
    high: float


def wilson(successes: float, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share; unlike a bootstrap it is honest about 0 of 30. Needs n > 0."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))  # rounding passes 0 and 1


def macro_average(
    benchmarks: Sequence[np.ndarray], *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Mean over benchmarks of the mean over questions, with a percentile bootstrap interval.

    Questions are resampled within each benchmark. `benchmarks`: arrays [Q_b], none of them empty.
    """
    rng = np.random.default_rng(seed)
    means_RB = np.stack([_resampled_means(scores_Q, resamples, rng) for scores_Q in benchmarks], axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means_RB.mean(axis=1), [tail, 1 - tail])
    return Interval(float(np.mean([scores_Q.mean() for scores_Q in benchmarks])), float(low), float(high))


def average(benchmarks: Sequence[np.ndarray]) -> tuple[Interval, str]:
    """The macro-average of scores in [0, 1], and the method of its interval: bootstrapped, or by Wilson where there
    is nothing to resample.

    A bootstrap takes 0 of 90 for certainty. Where no benchmark's scores vary, the interval is Wilson's for as many
    questions as an average of benchmarks of these sizes is worth.
    """
    if any(np.ptp(scores_Q) > 0 for scores_Q in benchmarks):
        return macro_average(benchmarks), "bootstrap"
    worth = len(benchmarks) ** 2 / sum(1 / len(scores_Q) for scores_Q in benchmarks)
    return wilson(worth * float(np.mean([scores_Q.mean() for scores_Q in benchmarks])), worth), "wilson"


def paired_difference(left: Sequence[np.ndarray], right: Sequence[np.ndarray], **options: float) -> Interval:
    """Macro-average of `left` minus that of `right` on the same questions, resampled together.

    Pairing removes how hard a question is from the interval. `options` as in `macro_average`.
    """
    return macro_average([left_Q - right_Q for left_Q, right_Q in zip(left, right, strict=True)], **options)


def _resampled_means(scores_Q: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Means [R] of R resamples with replacement."""
    n = len(scores_Q)
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples) @ scores_Q / n
