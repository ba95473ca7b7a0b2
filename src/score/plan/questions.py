"""How many questions an experiment has: counted in its files where they are there, else published, else assumed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from score.config import Config
from score.data import benchmarks
from score.errors import ScoreError
from score.plan.assumptions import Assumptions
from score.workflow import seed_name

PUBLISHED = {"math_bc_init": 1331, "search_bc_init": 2852, "search_mps": 11167}
"""Distinct questions of the published seed files, counted; `math_mps` is an assumption."""
CONTAMINATED = {"search_bc_init": 12, "search_mps": 593}
"""Those of them that are test questions word for word, counted; near-duplicates come on top."""


@dataclass(frozen=True)
class Questions:
    """Training questions by part, and which of them need the search and a judge."""

    cold_start: int
    mentored: int
    held_out: int
    searching: float
    """Share that needs `web_search`."""
    judged: float
    """Share whose answers a judge may have to decide."""
    source: str
    """Where the counts come from, for the output."""

    @property
    def ruled_searching(self) -> float:
        """Share that needs `web_search`, of those that rules decide; a judge is needed for such questions alone."""
        return max(0.0, self.searching - self.judged) / (1 - self.judged) if self.judged < 1 else 0.0

    def part(self, name: str) -> int:
        return {"cold_start": self.cold_start, "mentored": self.mentored, "held_out": self.held_out}[name]


def count(config: Config, root: Path, assumed: Assumptions) -> Questions:
    """
    Args:
        root: the experiment's results folder, whose `data/` is read as far as it is there.
    Raises:
        ScoreError: nothing tells how many questions a seed file has.
    """
    if config.data.generated:
        names = [n for n in benchmarks.NAMES if benchmarks.get(n).world == config.data.world]
        searching = sum(benchmarks.get(name).group != "math" for name in names) / len(names)
        return _parts(config, root, config.data.pool_per_benchmark * len(names), searching, 0.0, "generated")
    found = {seed_name(path): _in_seed(path, config, root, assumed) for path in config.data.seeds}
    total = sum(n for n, _ in found.values())
    search = sum(n for name, (n, _) in found.items() if name.startswith("search"))
    origin = ", ".join(f"{name} {n:,} {how}" for name, (n, how) in found.items())
    return _parts(config, root, total, search / total if total else 0.0, search / total if total else 0.0, origin)


def _parts(config: Config, root: Path, total: int, searching: float, judged: float, origin: str) -> Questions:
    """Of the split file; else as `score.data.splits` will divide them."""
    file = root / "data" / "splits.json"
    if file.exists():
        try:
            parts = {name: len(ids) for name, ids in json.loads(file.read_text(encoding="utf-8")).items()}
            return Questions(parts["cold_start"], parts["mentored"], parts["held_out"], searching, judged, str(file))
        except (ValueError, KeyError, AttributeError, TypeError):
            raise ScoreError(f"{file}: no split of questions; remove it to make it anew") from None
    held_out = min(config.data.held_out, total)
    cold_start = round(config.data.cold_start_share * (total - held_out))
    return Questions(cold_start, total - held_out - cold_start, held_out, searching, judged, origin)


def _in_seed(path: str, config: Config, root: Path, assumed: Assumptions) -> tuple[int, str]:
    """(training questions of a seed file without test questions, where that number comes from)."""
    name = seed_name(path)
    if (own := assumed.of("questions", name)) is not None:
        return round(own), "(assumed)"
    here = [
        root / "data" / "seeds" / f"{name}.jsonl",
        root / "data" / "raw" / path,
        Path(config.data.source or "", path),
    ]
    lines = next((n for file in here if (n := _lines(file))), None)
    dropped = CONTAMINATED.get(name, 0)
    if lines is not None:
        return max(0, lines - dropped), "(counted)"
    if name in PUBLISHED:
        return PUBLISHED[name] - dropped, "(published)"
    if name == "math_mps":
        return round(assumed.math_mps), "(assumed)"
    raise ScoreError(f"data.seeds: nothing tells how many questions {path} has; --assume questions.{name}=1000")


def _lines(file: Path) -> int | None:
    """Rows of a JSON Lines file; None if it is not there."""
    try:
        with open(file, "rb") as opened:
            return sum(1 for line in opened if line.strip())
    except OSError:
        return None


def attempted(config: Config, names: Iterable[str]) -> dict[str, int]:
    """Benchmark -> the questions of it that are attempted, each once."""
    data = config.data
    if data.generated:  # as many as are asked for
        return {name: data.per_benchmark or benchmarks.get(name).n for name in names}
    limits = {name: data.limits.get(name) or data.per_benchmark for name in names}
    return {name: min(limit or benchmarks.get(name).n, benchmarks.get(name).n) for name, limit in limits.items()}
