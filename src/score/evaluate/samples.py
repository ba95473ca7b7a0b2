"""What several samples of a question tell besides their mean: pass@k, and the vote of the majority. Pure.

pass@k is the chance that one of k samples is right, estimated without bias from n >= k of them (2107.03374); of graded
scores it is the expected best of k, which is the same for scores of 0 and 1. The vote takes the answer that most
samples give, the earlier one where two are equally frequent; a sample without an answer does not vote.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from statistics import fmean, stdev


@dataclass(frozen=True)
class Drawn:
    """The samples of one question: their scores, None where there is none, and answers in canonical form."""

    scores: tuple[float | None, ...]
    answers: tuple[str | None, ...]


def pass_at(k: int, scores: Sequence[float]) -> float:
    """The expected best of k of a question's n >= k samples: the i-th lowest is the best of C(i - 1, k - 1) subsets."""
    ranked = enumerate(sorted(scores))
    return sum(comb(below, k - 1) * score for below, score in ranked) / comb(len(scores), k)


def majority(drawn: Drawn) -> float:
    """The score of the answer that most samples give; 0 if none gives any."""
    voting = [(answer, score) for answer, score in zip(drawn.answers, drawn.scores, strict=True) if answer]
    if not voting:
        return 0.0
    (elected, _), *_ = Counter(answer for answer, _ in voting).most_common(1)  # the first of equals
    return next(score for answer, score in voting if answer == elected)


def summary(questions: Sequence[Drawn]) -> dict[str, float]:
    """Over the questions whose samples all have a score: their number, mean and its standard error (between questions),
    pass@k for k = 1, 2, 4, ... and n, and the vote's score."""
    whole = [drawn for drawn in questions if None not in drawn.scores]
    if not whole:
        return {"questions": 0}
    n, means = len(whole[0].scores), [fmean(drawn.scores) for drawn in whole]
    found = {"questions": len(whole), "samples": n, "mean": fmean(means), "majority": fmean(map(majority, whole))}
    if len(whole) > 1:
        found["standard_error"] = stdev(means) / len(whole) ** 0.5
    for k in sorted({2**power for power in range(n.bit_length())} | {n}):
        found[f"pass@{k}"] = fmean(pass_at(k, drawn.scores) for drawn in whole)
    return found
