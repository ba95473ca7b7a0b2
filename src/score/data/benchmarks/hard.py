"""Not a benchmark: the hard training tasks of a student that were kept out of its training (figure 3b).

Source    `correct/<student>/hard.jsonl`: tasks that stayed unsolved after the last correction, a seeded share of them
Metric    each question's own; those that only a judge could decide are left out
"""

from score.data.benchmarks.base import Benchmark

BENCHMARK = Benchmark(name="hard", label="hard tasks", group="hard", n=0, metric="own")
