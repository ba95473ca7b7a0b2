"""HotpotQA: two-hop questions over Wikipedia, short answers.

Source    inference/inference_data/hqa.jsonl of the published data, at the commit in score.data.fetch
Split     ARPO's sample of the development set, 1809.09600; n = 200
Metric    token F1, best over aliases; no judge
Licence   CC BY-SA 4.0
Paper     SCoRe table 1. 97 of the questions are in the published search seeds (score.data.splits drops them)
"""

from score.data.benchmarks.base import FOLDER, Benchmark

BENCHMARK = Benchmark(
    name="hotpotqa",
    label="HotpotQA",
    group="facts",
    n=200,
    metric="f1",
    files=(f"{FOLDER}/hqa.jsonl",),
)
