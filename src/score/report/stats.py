"""Intervals for shares and averages, tests of differences. Seeded and vectorised; knows nothing of files or tables.

Scores of one benchmark are an array [Q] over questions, each already averaged over seeds: the seeds of a question are
not independent of each other, so questions are resampled and their seeds stay together. The intervals say what other
questions would have done; they do not contain the variance between training runs.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

RESAMPLES = 10_000
FLIPS = 20_000
_CELLS = 4_000_000  # of random numbers at a time
FEW = 5
"""Questions that are not all wrong, or not all right, below which their scatter is no estimate of a variance."""


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


def share(scores_Q: np.ndarray) -> Interval:
    """Mean of scores in [0, 1] with Wilson's interval for the number of questions that it is worth.

    Single right-or-wrong samples are worth their number. Means over several samples, or graded scores, scatter less:
    they are worth as many more questions as their variance is smaller (the design effect of survey sampling), but no
    more where fewer than `FEW` questions tell what the variance is. Simulated, the interval covers the truth in 94 % or
    more of cases from n = 30 and p = 0.02 on; a percentile bootstrap covers 43 to 88 % there.
    """
    n, mean = len(scores_Q), float(scores_Q.mean())
    variance = float(scores_Q.var(ddof=1)) if n > 1 else 0.0
    single = bool(np.isin(scores_Q, (0, 1)).all())
    alike = np.ptp(scores_Q) < 1e-9  # not their variance, which rounding keeps from being 0
    worth = n if single or alike else n * mean * (1 - mean) / variance
    if min(np.count_nonzero(scores_Q > 0), np.count_nonzero(scores_Q < 1)) < FEW:
        worth = min(worth, n)
    return wilson(worth * mean, worth)


def macro_average(
    benchmarks: Sequence[np.ndarray], *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Mean over benchmarks of the mean over questions, with a percentile bootstrap interval.

    Questions are resampled within each benchmark. `benchmarks`: arrays [Q_b], none of them empty.
    """
    mean = float(np.mean([scores_Q.mean() for scores_Q in benchmarks]))
    return _percentiles(mean, _resampled_average(benchmarks, resamples, seed), confidence)


def average(benchmarks: Sequence[np.ndarray]) -> tuple[Interval, str]:
    """The macro-average of scores in [0, 1], and the method of its interval: bootstrapped; by Wilson for a single
    benchmark, and where there is nothing to resample.

    A bootstrap takes 0 of 90 for certainty. Where no benchmark's scores vary, the interval is Wilson's for as many
    questions as an average of benchmarks of these sizes is worth.
    """
    if len(benchmarks) == 1:
        return share(benchmarks[0]), "wilson"
    if any(np.ptp(scores_Q) > 0 for scores_Q in benchmarks):
        return macro_average(benchmarks), "bootstrap"
    worth = len(benchmarks) ** 2 / sum(1 / len(scores_Q) for scores_Q in benchmarks)
    return wilson(worth * float(np.mean([scores_Q.mean() for scores_Q in benchmarks])), worth), "wilson"


@dataclass(frozen=True)
class Difference:
    """Left minus right on the same questions, and the two-sided p-value of no difference."""

    interval: Interval
    p: float


def paired_difference(
    left: Sequence[np.ndarray], right: Sequence[np.ndarray], *, confidence: float = 0.95, resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:  # fmt: skip
    """Macro-average of `left` minus that of `right`, arrays [Q_b] each, with questions resampled together.

    Pairing removes how hard a question is from the interval. The p-value is that of a permutation test, which holds for
    few questions, too: were there no difference, each gain could as well have been a loss.
    """
    gains = [left_Q - right_Q for left_Q, right_Q in zip(left, right, strict=True)]
    mean = float(np.mean([gain_Q.mean() for gain_Q in gains]))
    interval = _percentiles(mean, _resampled_average(gains, resamples, seed), confidence)
    return Difference(interval, _sign_flip(gains, mean, FLIPS, np.random.default_rng(seed)))


def _sign_flip(gains: Sequence[np.ndarray], mean: float, flips: int, rng: np.random.Generator) -> float:
    """Share of random signs of the gains whose macro-average is as far from zero as `mean`, two-sided.

    Gains of one size are flipped together: how many of them turn out positive is binomial.
    """
    weighted = np.concatenate([np.abs(gain_Q) / len(gain_Q) for gain_Q in gains]) / len(gains)
    size_S, count_S = np.unique(weighted[weighted > 0].round(12), return_counts=True)
    as_far, room = 0, max(1, _CELLS // max(1, len(size_S)))
    for start in range(0, flips, room):
        positive_RS = rng.binomial(count_S, 0.5, size=(min(room, flips - start), len(count_S)))
        as_far += np.count_nonzero(np.abs((2 * positive_RS - count_S) @ size_S) >= abs(mean) - 1e-9)
    return float(as_far + 1) / (flips + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: compare each with the level that the whole family is to have."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def _resampled_average(benchmarks: Sequence[np.ndarray], resamples: int, seed: int) -> np.ndarray:
    """Macro-averages [R] of R resamples of the questions within each benchmark."""
    drawn = _resamples(tuple(map(len, benchmarks)), resamples, seed)
    pairs = zip(drawn, benchmarks, strict=True)
    return np.mean([count_RQ @ scores_Q / len(scores_Q) for count_RQ, scores_Q in pairs], axis=0)


@functools.lru_cache(maxsize=4)  # of three groups and of all: 400 MB for all questions of the paper
def _resamples(sizes: tuple[int, ...], resamples: int, seed: int) -> list[np.ndarray]:
    """How often each question is in each resample with replacement, arrays [R, Q_b] for benchmarks of Q_b questions."""
    rng = np.random.default_rng(seed)
    return [rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(float) for n in sizes]


def _percentiles(mean: float, mean_R: np.ndarray, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(mean_R, [tail, 1 - tail])
    return Interval(mean, float(low), float(high))
