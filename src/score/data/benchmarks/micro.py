"""The benchmarks of the micro-worlds, 12 each, in the paper's three groups; `score.micro` generates their questions.

Source    score.micro, from a seed; no question occurs in training by construction
Split     40 test questions each
Metric    exact: trimmed text, or equal numbers
Names     math2, math3, math4   chains of 2 to 4 quantities; math3x has a distractor
          hop2 .. hop5          facts at the end of 2 to 5 searches
          deep11 .. deep22      two branches of 1 or 2 searches each, then a computation
Long      math7 .. math11, hop7 .. hop11, deep33 .. deep55: the same with 8 to 12 steps (`data.world: micro_long`)

Numbers on these benchmarks show the method at work; they are never shown as the paper's.
"""

from score.data.benchmarks.base import Benchmark

_WORLDS = {
    "micro": {
        "math": ("math2", "math3", "math4", "math3x"),
        "facts": ("hop2", "hop3", "hop4", "hop5"),
        "deep": ("deep11", "deep21", "deep12", "deep22"),
    },
    "micro_long": {
        "math": ("math7", "math8", "math9", "math11"),
        "facts": ("hop7", "hop8", "hop9", "hop11"),
        "deep": ("deep33", "deep34", "deep44", "deep55"),
    },
}

BENCHMARKS = tuple(
    Benchmark(name=name, label=name, group=group, n=40, metric="exact", world=world)
    for world, groups in _WORLDS.items()
    for group, names in groups.items()
    for name in names
)
