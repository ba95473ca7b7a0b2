"""MATH-500: competition problems with LaTeX answers (fractions, intervals, tuples, text).

Source    inference/inference_data/math_500.jsonl of the published data, at the commit in score.data.fetch
Split     the 500 test problems of 2305.20050, drawn from MATH, 2103.03874; n = 500; level in meta
Metric    accuracy; the paper asks Qwen2.5-72B-Instruct, here math-verify decides (closed forms)
Licence   MIT (MATH)
Paper     SCoRe table 1. The authors' RL validates on these very questions (hazard 24); this harness never does
"""

from score.data.benchmarks.base import FOLDER, Benchmark

BENCHMARK = Benchmark(
    name="math500",
    label="MATH500",
    group="math",
    n=500,
    metric="math",
    files=(f"{FOLDER}/math_500.jsonl",),
)
