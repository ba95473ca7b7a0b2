"""What scoring and reporting cost at the size of the whole project: 12 benchmarks, 20 agents, 5 seeds, 4 samples.

    python -m benchmarks.scale                        # about a million generated records; the bars are 5 minutes and 4 GB
    python -m benchmarks.scale --agents 4 --seeds 2   # a look in less time; the bars stay those of the whole

It calls the commands that the workflow's rules call, two at a time as `snakemake --cores 2` would, without Snakemake's
own time. The questions and answers are made up: no benchmark's content is in here. Answers are of the forms that the
published sets have (integers, fractions, roots, intervals, names), a third of them right, and a wrong one is seldom
given twice. Records have four steps with text and token ids, as a model's have. A few prediction files stand for all
agents, so reading them is reading from the page cache.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from score.data import benchmarks
from score.evaluate.score import verdict_key
from score.jsonl import write_json, write_rows
from score.records import Step, StopReason, Task, Trajectory

BAR_S, BAR_GB = 300, 4
AT_ONCE = 2
DIFFERENT = 3  # prediction files of a benchmark that are really different
PUBLISHED = [name for name in benchmarks.NAMES if benchmarks.get(name).world == "published"]
PARTS = {
    "main": [name for name in PUBLISHED if benchmarks.get(name).group != "deep"],
    "deep": [name for name in PUBLISHED if benchmarks.get(name).group == "deep"],
}
NAMES = "Ada Boole Cantor Dirac Euler Fermat Gauss Hilbert Ito Jacobi Klein Lagrange Markov Noether Pascal".split()
WORDS = "the of and compute value result = print( ) search for then answer number list step because which".split()

Form = Callable[[random.Random], str]
MATH: dict[Form, float] = {
    lambda r: str(r.randrange(1000)): 0.6,
    lambda r: rf"\frac{{{r.randrange(1, 90)}}}{{{r.randrange(2, 90)}}}": 0.15,
    lambda r: rf"{r.randrange(2, 30)}\sqrt{{{r.choice((2, 3, 5, 7))}}}+{r.randrange(40)}": 0.15,
    lambda r: rf"({r.randrange(9)}, {r.randrange(10, 99)}]": 0.05,
    lambda r: rf"{r.randrange(2, 9)}x^2+{r.randrange(2, 9)}x": 0.05,
}


def answer(name: str, r: random.Random) -> str:
    """An answer of a form that the benchmark's golds have."""
    if benchmarks.get(name).group == "math":
        (form,) = r.choices(list(MATH), list(MATH.values()))
        return form(r)
    return " ".join(r.choices(NAMES, k=r.randint(1, 4)))


def tasks(name: str, r: random.Random) -> list[Task]:
    return [
        Task(f"{name}-{i}", " ".join(r.choices(WORDS, k=40)) + f" {i}?", (answer(name, r),), name)
        for i in range(benchmarks.get(name).n)
    ]


def trajectory(task: Task, sample: int, r: random.Random) -> Trajectory:
    right = r.random() < 1 / 3
    steps = tuple(step(r) for _ in range(4))
    given = task.answers[0] if right else answer(task.dataset, r)
    tokens = {"prompt": 9000, "completion": 1100, "calls": 5}
    meta = {"sample": sample, "tool_calls": {"web_search": 3}}
    return Trajectory(task, "A plan.", steps, StopReason.ANSWERED, rf"\boxed{{{given}}}", tokens, meta=meta)


def step(r: random.Random) -> Step:
    text = " ".join(r.choices(WORDS, k=200))
    ids = tuple(r.choices(range(150_000), k=230))
    return Step(text[:600], text[600:], text[:300], text=text, token_ids=ids, seconds=1.0)


def lay_out(folder: Path, agents: Sequence[str], seeds: Sequence[int], samples: int) -> int:
    """Writes tasks, predictions and verdicts; returns the bytes of all prediction files."""
    r, total = random.Random(0), 0
    for name in PUBLISHED:
        asked = tasks(name, r)
        write_rows(folder / f"data/{name}.jsonl", (task.to_json() for task in asked))
        made, verdicts = [], {}
        for i in range(DIFFERENT):
            drawn = [trajectory(task, sample, r) for task in asked for sample in range(samples)]
            made.append(folder / f"predictions/{name}.{i}.jsonl")
            write_rows(made[-1], (one.to_json() for one in drawn))
            verdicts |= {verdict_key(name, one.task.question, one.answer): r.random() < 0.1 for one in drawn}
        if benchmarks.get(name).metric == "judge":
            write_rows(folder / f"verdicts/{name}.jsonl", ({"key": k, "equivalent": v} for k, v in verdicts.items()))
        for source, (agent, seed) in zip(itertools.cycle(made), itertools.product(agents, seeds)):
            link = folder / f"eval/{agent}/{seed}/{name}.jsonl"
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, link)
            total += source.stat().st_size
    rows = [
        {"name": a, "student": "generated", "method": a, "tables": [1, 2, 3], "compare": [agents[0]][: a != agents[0]]}
        for a in agents
    ]
    write_json(folder / "agents.json", rows)
    return total


def scoring(agents: Sequence[str], seeds: Sequence[int], parts: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """The commands that score some parts of every agent's evaluation."""
    for agent, seed, names in itertools.product(agents, seeds, parts):
        judged = [name for name in names if benchmarks.get(name).metric == "judge"]
        yield [
            *("score.evaluate.score", "--agent", agent, "--seed", str(seed)),
            *("--predictions", *(f"eval/{agent}/{seed}/{name}.jsonl" for name in names)),
            *("--tasks", *(f"data/{name}.jsonl" for name in names)),
            *("--verdicts", *(f"verdicts/{name}.jsonl" for name in judged)),
        ]


def reporting(agents: Sequence[str], seeds: Sequence[int]) -> Iterator[list[str]]:
    """The commands that make the tables and the list of claims."""

    def scores(names: Sequence[str]) -> list[str]:
        return ["--scores", *(f"eval/{a}/{s}/{name}.score.json" for a in agents for s in seeds for name in names)]

    for number, part in ((1, "main"), (2, "deep"), (3, "main")):
        files = [f"--out-{kind}=table{number}.{kind}" for kind in ("csv", "md", "tex")]
        yield ["score.report.tables", "--table", str(number), "--agents", "agents.json", *scores(PARTS[part]), *files]
    yield ["score.report.tables", "--headline", "--agents", "agents.json", *scores(PUBLISHED), "--out-md=headline.md"]
    yield ["score.report.reproduction", "--agents", "agents.json", *scores(PUBLISHED), "--out", "REPRODUCTION.md"]


def timed(commands: Sequence[list[str]], folder: Path) -> float:
    """Seconds that the commands take, `AT_ONCE` at a time."""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src"), "OMP_NUM_THREADS": "1"}

    def run(command: list[str]) -> None:
        done = subprocess.run([sys.executable, "-m", *command], cwd=folder, env=env, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)[:200]} failed:\n{done.stderr[-2000:]}")

    started = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(run, commands))
    return time.monotonic() - started


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--agents", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=4)
    args = parser.parse_args(argv)
    agents, seeds = [f"agent{i}" for i in range(args.agents)], range(args.seeds)
    print(f"load at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    with tempfile.TemporaryDirectory(prefix="score-scale-") as name:
        folder = Path(name)
        size = lay_out(folder, agents, seeds, args.samples)
        records = args.agents * args.seeds * args.samples * sum(benchmarks.get(name).n for name in PUBLISHED)
        print(f"{records:,} records, {size / 1e9:.1f} GB of predictions, {json.dumps(vars(args))}")
        single = timed(list(scoring(agents[:1], seeds[:1], [[name] for name in PUBLISHED])), folder)
        whole = timed(list(scoring(agents[:1], seeds[:1], list(PARTS.values()))), folder)
        print(
            f"one agent and seed: {single:.1f} s a process per benchmark, {whole:.1f} s one per part: {single / whole:.2f}x"
        )
        scored = timed(list(scoring(agents, seeds, list(PARTS.values()))), folder)
        print(f"scoring:   {scored:6.1f} s, {records / scored:,.0f} records a second")
        reported = timed(list(reporting(agents, seeds)), folder)
        print(f"reporting: {reported:6.1f} s")
    peak = AT_ONCE * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # KiB; each as large as the largest
    for what, value, bar in (("seconds", scored + reported, BAR_S), ("GB at most", peak, BAR_GB)):
        print(f"{what}: {value:.1f} of {bar}: {'met' if value < bar else 'NOT MET'}")


if __name__ == "__main__":
    main()
