"""2WikiMultihopQA: multi-hop questions over Wikipedia and Wikidata, answers with alias lists.

Source    inference/inference_data/2wiki.jsonl of the published data, at the commit in score.data.fetch
Split     ARPO's sample of the development set, 2011.01060; n = 200
Metric    token F1, best over aliases; no judge
Licence   Apache-2.0
Paper     SCoRe table 1. 116 of the questions are in the published search seeds (score.data.splits drops them)
"""

from score.data.benchmarks.base import FOLDER, Benchmark

BENCHMARK = Benchmark(
    name="2wiki",
    label="2Wiki",
    group="facts",
    n=200,
    metric="f1",
    files=(f"{FOLDER}/2wiki.jsonl",),
)
