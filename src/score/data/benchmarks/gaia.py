"""GAIA: questions for general assistants in three levels; the text-only ones, which need no attached file.

Source    inference/inference_data/gaia-{1,2,3}.jsonl of the published data, at the commit in score.data.fetch
Split     the text-only part of the validation set, 2311.12983; n = 39 + 52 + 12 = 103; level in meta
Metric    accuracy, judged (the paper: Qwen2.5-72B-Instruct) where the normalised strings differ
Licence   its authors ask not to share the questions in the open
Paper     SCoRe table 2; its "GAIA avg" weights by question. 53 are in the published search seeds (score.data.splits)
"""

from score.data.benchmarks.base import FOLDER, Benchmark

BENCHMARK = Benchmark(
    name="gaia",
    label="GAIA",
    group="deep",
    n=103,
    metric="judge",
    files=tuple(f"{FOLDER}/gaia-{level}.jsonl" for level in (1, 2, 3)),
    levels=(1, 2, 3),
)
