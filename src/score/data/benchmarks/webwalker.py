"""WebWalkerQA: questions about what stands deep inside web sites, English and Chinese, long answers.

Source    inference/inference_data/webwalker.jsonl of the published data, at the commit in score.data.fetch
Split     ARPO's sample of WebWalkerQA, 2501.07572; n = 200
Metric    accuracy, judged (the paper: Qwen2.5-72B-Instruct) where the normalised strings differ
Licence   Apache-2.0
Paper     SCoRe table 2. 118 of the questions are in the published search seeds (score.data.splits drops them)
"""

from score.data.benchmarks.base import FOLDER, Benchmark

BENCHMARK = Benchmark(
    name="webwalker",
    label="WebWalker",
    group="deep",
    n=200,
    metric="judge",
    files=(f"{FOLDER}/webwalker.jsonl",),
)
