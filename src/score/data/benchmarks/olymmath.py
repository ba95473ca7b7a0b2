"""OlymMATH, English: 100 easy and 100 hard olympiad problems. This is not OlympiadBench.

Source    inference/inference_data/olymmath.jsonl of the published data, at the commit in score.data.fetch
Split     RUC-AIBOX/OlymMATH, English easy and hard, 2503.21380; n = 200
Metric    accuracy; the paper asks Qwen2.5-72B-Instruct, here math-verify decides (numbers and closed forms)
Licence   MIT
Paper     SCoRe table 1
"""

from score.data.benchmarks.base import FOLDER, Benchmark

BENCHMARK = Benchmark(
    name="olymmath",
    label="OlymMATH",
    group="math",
    n=200,
    metric="math",
    files=(f"{FOLDER}/olymmath.jsonl",),
)
