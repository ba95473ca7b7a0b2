"""MuSiQue: two- to four-hop questions composed of single-hop ones, short answers with aliases.

Source    inference/inference_data/musiq.jsonl of the published data, at the commit in score.data.fetch
Split     ARPO's sample of the development set, 2108.00573; n = 200
Metric    token F1, best over aliases; no judge
Licence   CC BY 4.0
Paper     SCoRe table 1. 58 of the questions are in the published search seeds (score.data.splits drops them)
"""

from score.data.benchmarks.base import FOLDER, Benchmark

BENCHMARK = Benchmark(
    name="musique",
    label="MuSiQue",
    group="facts",
    n=200,
    metric="f1",
    files=(f"{FOLDER}/musiq.jsonl",),
)
