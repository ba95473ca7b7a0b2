"""A finished run's ledger beside what was expected of the same work, and the ratios that calibrate the next plan."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from score import asked
from score.errors import ScoreError
from score.plan.loads import COUNTS, Piece, Setting, load, sums
from score.workflow import Plan

_COLUMNS = {"requests": "n_requests", "prompt": "prompt_tokens", "completion": "completion_tokens"}
"""Our name of a count -> the ledger's (`score.report.ledger`)."""
_RECORDS = {
    "rollout": r"rollout/(?P<agent>[^/]+)/(?P<part>[^/]+)\.provenance\.json",
    "correct": r"correct/(?P<agent>[^/]+)-s\d+/provenance\.json",
    "grpo": r"train/(?P<agent>[^/]+)-s\d+/provenance\.json",
    "evaluate": r"eval/(?P<agent>[^/]+)/\d+/provenance\.(?P<part>\w+)\.json",
    "judge": r"verdicts/(?P<part>[^/]+)\.provenance\.json",
}
"""Stage -> the path of its provenance below the results."""

Counts = Mapping[str, float]
Key = tuple[str, str]
"""(stage, role)."""


@dataclass(frozen=True)
class Pair:
    """What was expected of a stage's role, and what the ledger says."""

    expected: Counts
    actual: Counts

    def ratio(self, name: str) -> float | None:
        """Actual by expected; None where nothing was expected."""
        return self.actual[name] / self.expected[name] if self.expected[name] else None


def read(file: Path) -> dict[Key, Counts]:
    """The sums of a ledger, by stage and role. Raises `ScoreError` if it is none."""
    try:
        with open(file, encoding="utf-8", newline="") as opened:
            rows = list(csv.DictReader(opened))
        found: dict[Key, dict[str, float]] = {}
        for row in rows:
            totals = found.setdefault((row["stage"], row["role"]), dict.fromkeys(COUNTS, 0.0))
            for name, column in _COLUMNS.items():
                totals[name] += float(row[column])
    except OSError:
        raise ScoreError(f"{file}: no such file; a run writes it at its end (results/EXPERIMENT/ledger.csv)") from None
    except (KeyError, TypeError, ValueError, csv.Error):
        raise ScoreError(f"{file}: not a ledger as score.report.ledger writes it") from None
    if not found:
        raise ScoreError(f"{file}: a ledger without rows; that run asked no model anything")
    return found


def pieces(plan: Plan) -> Iterator[Piece]:
    """The work behind an experiment's ledger."""
    for path in asked.records(plan):
        for stage, pattern in _RECORDS.items():
            if match := re.fullmatch(pattern, path.removeprefix(f"{plan.root}/")):
                names = match.groupdict()
                yield Piece(stage, names.get("agent", ""), names.get("part", ""))


def expected(work: Iterable[Piece], setting: Setting) -> dict[Key, Counts]:
    """The sums of what is expected, by stage and role."""
    asks = [ask for piece in work for ask in load(piece, setting).asks]
    return sums(asks, lambda ask: (ask.stage, ask.role))


def pairs(thought: Mapping[Key, Counts], said: Mapping[Key, Counts]) -> dict[Key, Pair]:
    """Side by side; what only one of the two has is 0 in the other."""
    nothing = dict.fromkeys(COUNTS, 0.0)
    return {key: Pair(thought.get(key, nothing), said.get(key, nothing)) for key in dict.fromkeys([*thought, *said])}


def together(found: Iterable[Pair]) -> Pair:
    """The sum of several."""
    found = list(found)
    sides = [[pair.expected for pair in found], [pair.actual for pair in found]]
    return Pair(*({name: sum(counts[name] for counts in side) for name in COUNTS} for side in sides))


def factors(found: Mapping[Key, Pair]) -> dict[Key, dict[str, float]]:
    """What to multiply by: where either side has nothing, there is nothing to learn."""
    wanted = {key: {name: pair.ratio(name) for name in COUNTS} for key, pair in found.items()}
    return {key: {name: ratio for name, ratio in by.items() if ratio} for key, by in wanted.items()}


def judged_rows(plan: Plan) -> dict[str, int]:
    """Benchmark -> how many agents' predictions its judge sees, over all seeds."""
    return {name: len(plan.predictions(name)) for name in plan.config.benchmarks}
