"""Humanity's Last Exam: expert questions of many fields; 381 exact-match and 119 multiple-choice ones.

Source    inference/inference_data/hle_500.jsonl of the published data, at the commit in score.data.fetch
Split     500 text-only questions of HLE, 2501.14249; n = 500; category and answer_type in meta
Metric    accuracy, judged (the paper: Qwen2.5-72B-Instruct) where the normalised strings differ
Licence   MIT; its authors ask to keep the questions out of training data
Paper     SCoRe table 2. 73 of the questions are in the published search seeds (score.data.splits drops them)
"""

from score.data.benchmarks.base import FOLDER, Benchmark

BENCHMARK = Benchmark(
    name="hle",
    label="HLE",
    group="deep",
    n=500,
    metric="judge",
    files=(f"{FOLDER}/hle_500.jsonl",),
)
