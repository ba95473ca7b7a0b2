"""xbench-DeepSearch: Chinese questions that need a deep search.

Source    inference/inference_data/xbench.jsonl of the published data, at the commit in score.data.fetch
Split     xbench-DeepSearch, complete, 2506.13651; n = 100
Metric    accuracy, judged (the paper: Qwen2.5-72B-Instruct) where the normalised strings differ
Licence   its authors ask not to share the questions in the open
Paper     SCoRe table 2
"""

from score.data.benchmarks.base import FOLDER, Benchmark

BENCHMARK = Benchmark(
    name="xbench",
    label="xBench",
    group="deep",
    n=100,
    metric="judge",
    files=(f"{FOLDER}/xbench.jsonl",),
)
