"""AIME 2024: olympiad-style problems with answers from 0 to 999.

Source    inference/inference_data/aime24.jsonl of the published data, at the commit in score.data.fetch
Split     AIME I and II of 2024, complete; n = 30
Metric    accuracy; the paper asks Qwen2.5-72B-Instruct, here math-verify decides (integers)
Licence   problems by the Mathematical Association of America; the published file names no licence
Paper     SCoRe table 1; a single question is 3.3 points
"""

from score.data.benchmarks.base import FOLDER, Benchmark

BENCHMARK = Benchmark(
    name="aime24",
    label="AIME24",
    group="math",
    n=30,
    metric="math",
    files=(f"{FOLDER}/aime24.jsonl",),
)
