"""The registry of benchmarks: one module each, with source, size, metric, licence and paper in its docstring."""

from __future__ import annotations

import difflib

from score.data.benchmarks import (
    aime24,
    aime25,
    bamboogle,
    gaia,
    hard,
    hle,
    hotpotqa,
    math500,
    micro,
    musique,
    olymmath,
    twowiki,
    webwalker,
    xbench,
)
from score.data.benchmarks.base import Benchmark
from score.errors import ScoreError

# The order of the paper's columns.
_MODULES = (
    *(aime24, aime25, math500, olymmath),
    *(hotpotqa, twowiki, musique, bamboogle),
    *(gaia, hle, webwalker, xbench),
)

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark for benchmark in (*(module.BENCHMARK for module in _MODULES), *micro.BENCHMARKS)
}

NAMES: tuple[str, ...] = tuple(BENCHMARKS)


def get(name: str) -> Benchmark:
    """The benchmark of that name. Raises `ScoreError` with the nearest name."""
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    if name == hard.BENCHMARK.name:
        return hard.BENCHMARK
    near = difflib.get_close_matches(name, NAMES, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(NAMES)}"
    raise ScoreError(f"unknown benchmark {name!r}; {hint}")
