"""What scoring and reporting cost at the size of the whole project: 12 benchmarks, 20 agents, 5 seeds, 4 samples.

    python -m benchmarks.scale                        # about a million generated records; 13 GB of disk below $TMPDIR
    python -m benchmarks.scale --agents 4 --seeds 2   # a look in less time; the bars stay those of the whole

It calls the commands that the workflow's rules call, two at a time as `snakemake --cores 2` would, without Snakemake's
own time. Questions and answers are made up: no benchmark's content is in here. Golds have the published sets' forms in
about their shares (numbers whole, fractional and irrational, intervals, polynomials, sets; names). A third of the
answers are right; the wrong ones to a question have its gold's form and follow Zipf's law over a hundred, so that each
question sees some eighty different ones. Records have four steps with text and token ids, as a model's have.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

from score.data import benchmarks
from score.evaluate.score import verdict_key
from score.jsonl import write_json, write_rows
from score.records import Step, StopReason, Task, Trajectory

BAR_S, BAR_GB = 300, 4
AT_ONCE = 2
PUBLISHED = [name for name in benchmarks.NAMES if benchmarks.get(name).world == "published"]
PARTS = {
    "main": [name for name in PUBLISHED if benchmarks.get(name).group != "deep"],
    "deep": [name for name in PUBLISHED if benchmarks.get(name).group == "deep"],
}
NAMES = ("Ada", "Boole", "Cantor", "Dirac", "Euler", "Fermat", "Gauss", "Hilbert", "Ito", "Jacobi", "Klein", "Noether")
WORDS = (
    "the",
    "of",
    "and",
    "compute",
    "value",
    "result",
    "=",
    "print(",
    ")",
    "search",
    "for",
    "then",
    "answer",
    "list",
)
WRONG = 100
ZIPF = [1 / rank for rank in range(1, WRONG + 1)]
BODIES = 50  # episodes whose steps are really different

Form = Callable[[random.Random], str]
FORMS: dict[Form, float] = {
    lambda r: str(r.randrange(1000)): 0.6,
    lambda r: rf"\frac{{{r.randrange(1, 90)}}}{{{r.randrange(2, 90)}}}": 0.15,
    lambda r: rf"{r.randrange(2, 30)}\sqrt{{{r.choice((2, 3, 5, 7))}}}+{r.randrange(40)}": 0.04,
    lambda r: rf"({r.randrange(9)}, {r.randrange(10, 99)}]": 0.03,
    lambda r: rf"{r.randrange(2, 30)}x^2+{r.randrange(2, 30)}x": 0.05,
    lambda r: rf"{r.randrange(180)}^\circ": 0.04,
    lambda r: rf"{r.randrange(1, 30)}-{r.randrange(1, 30)}i": 0.03,
    lambda r: rf"(-\infty, {r.randrange(9)}) \cup ({r.randrange(10, 99)}, \infty)": 0.03,
    lambda r: rf"{r.randrange(1, 9)}\frac{{{r.randrange(1, 9)}}}{{{r.randrange(9, 20)}}}": 0.03,
}
"""How to draw an answer: share. The last two forms are math-verify's to read, as 6 % of the published golds are."""


def a_name(r: random.Random) -> str:
    return " ".join(r.choices(NAMES, k=r.randint(1, 4)))


@dataclass(frozen=True)
class Question:
    """A task and the wrong answers that are given to it, the frequent ones first."""

    task: Task
    wrong: list[str]

    def answer(self, r: random.Random) -> str:
        return self.task.answers[0] if r.random() < 1 / 3 else r.choices(self.wrong, ZIPF)[0]


def questions(name: str, r: random.Random) -> list[Question]:
    made = []
    for i in range(benchmarks.get(name).n):
        maths = benchmarks.get(name).group == "math"
        (form,) = r.choices(list(FORMS), list(FORMS.values())) if maths else [a_name]
        task = Task(f"{name}-{i}", f"{' '.join(r.choices(WORDS, k=40))} {i}?", (form(r),), name)
        made.append(Question(task, [form(r) for _ in range(WRONG)]))
    return made


def body(r: random.Random) -> str:
    """The steps of an episode as JSON."""
    text = " ".join(r.choices(WORDS, k=200))
    ids = tuple(r.choices(range(150_000), k=230))
    step = Step(text[:600], text[600:], text[:300], text=text, token_ids=ids, seconds=1.0)
    return json.dumps([step.to_json()] * 4)


def record(question: Question, sample: int, bodies: Sequence[str], r: random.Random) -> str:
    """A line of a prediction file."""
    tokens = {"prompt": 9000, "completion": 1100, "calls": 5}
    meta = {"sample": sample, "tool_calls": {"web_search": 3}}
    answer = rf"\boxed{{{question.answer(r)}}}"
    episode = Trajectory(question.task, "A plan.", (), StopReason.ANSWERED, answer, tokens, meta=meta)
    return json.dumps(episode.to_json()).replace('"steps": []', f'"steps": {r.choice(bodies)}') + "\n"


def lay_out(folder: Path, agents: Sequence[str], seeds: Sequence[int], samples: int) -> int:
    """Writes tasks, predictions and verdicts; returns the bytes of all prediction files."""
    r, total = random.Random(0), 0
    bodies = [body(r) for _ in range(BODIES)]
    for name in PUBLISHED:
        asked = questions(name, r)
        write_rows(folder / f"data/{name}.jsonl", (question.task.to_json() for question in asked))
        if benchmarks.get(name).metric == "judge":
            pairs = [(q.task.question, rf"\boxed{{{wrong}}}") for q in asked for wrong in q.wrong]
            rows = ({"key": verdict_key(name, *pair), "equivalent": r.random() < 0.1} for pair in pairs)
            write_rows(folder / f"verdicts/{name}.jsonl", rows)
        for agent, seed in itertools.product(agents, seeds):
            path = folder / f"eval/{agent}/{seed}/{name}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(record(q, sample, bodies, r) for q in asked for sample in range(samples)))
            total += path.stat().st_size
    write_json(folder / "agents.json", [_row(agent, agents[0]) for agent in agents])
    return total


def _row(agent: str, first: str) -> dict:
    compare = [] if agent == first else [first]
    return {"name": agent, "student": "generated", "method": agent, "tables": [1, 2, 3], "compare": compare}


def scoring(agents: Sequence[str], seeds: Sequence[int], parts: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """The commands that score some parts of every agent's evaluation."""
    for agent, seed, names in itertools.product(agents, seeds, parts):
        judged = [name for name in names if benchmarks.get(name).metric == "judge"]
        yield [
            *("score.evaluate.score", "--agent", agent, "--seed", str(seed)),
            *("--predictions", *(f"eval/{agent}/{seed}/{name}.jsonl" for name in names)),
            *("--tasks", *(f"data/{name}.jsonl" for name in names)),
            *("--verdicts", *(f"verdicts/{name}.jsonl" for name in judged), "--remembered", "work/mathverify.sqlite"),
        ]


def reporting(agents: Sequence[str], seeds: Sequence[int]) -> Iterator[list[str]]:
    """The commands that make the tables, a figure of all scores, and the list of claims."""

    def scores(names: Sequence[str]) -> list[str]:
        return ["--scores", *(f"eval/{a}/{s}/{name}.score.json" for a in agents for s in seeds for name in names)]

    for number, part in ((1, "main"), (2, "deep"), (3, "main")):
        files = [f"--out-{kind}=table{number}.{kind}" for kind in ("csv", "md", "tex")]
        yield ["score.report.tables", "--table", str(number), "--agents", "agents.json", *scores(PARTS[part]), *files]
    yield ["score.report.tables", "--headline", "--agents", "agents.json", *scores(PUBLISHED), "--out-md=headline.md"]
    taught = [word for agent in agents for word in ("--taught", agent)]
    figure = ["score.report.figures.teacher_tokens", *taught, "--agents", "agents.json", "--out-dir", "figures"]
    yield [*figure, *scores(PUBLISHED)]
    yield ["score.report.reproduction", "--agents", "agents.json", *scores(PUBLISHED), "--out", "REPRODUCTION.md"]


class Memory(threading.Thread):
    """Watches how much this process's descendants hold at once, math-verify's workers among them."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self.over = 0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.5):
            self.peak = max(self.peak, sum(map(_resident, psutil.Process().children(recursive=True))))

    def __enter__(self) -> Memory:
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.over.set()


def _resident(process: psutil.Process) -> int:
    """Bytes; pages that several share count for each."""
    with contextlib.suppress(psutil.Error):
        return process.memory_info().rss
    return 0


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
    with tempfile.TemporaryDirectory(prefix="score-scale-") as name, Memory() as memory:
        folder = Path(name)
        size = lay_out(folder, agents, seeds, args.samples)
        records = args.agents * args.seeds * args.samples * sum(benchmarks.get(name).n for name in PUBLISHED)
        print(f"{records:,} records, {size / 1e9:.1f} GB of predictions, {json.dumps(vars(args))}")
        few = (agents[:1], seeds[:1])
        single = timed(list(scoring(*few, [[name] for name in PUBLISHED])), folder)
        (folder / "work/mathverify.sqlite").unlink(missing_ok=True)
        whole = timed(list(scoring(*few, list(PARTS.values()))), folder)
        print(f"one agent and seed: {single:.1f} s a process per benchmark, {whole:.1f} s one per part")
        (folder / "work/mathverify.sqlite").unlink(missing_ok=True)
        scored = timed(list(scoring(agents, seeds, list(PARTS.values()))), folder)
        print(f"scoring:   {scored:6.1f} s, {records / scored:,.0f} records a second")
        again = timed(list(scoring(agents, seeds, list(PARTS.values()))), folder)
        print(f"again:     {again:6.1f} s, math-verify's verdicts known: {scored / again:.1f}x")
        reported = timed(list(reporting(agents, seeds)), folder)
        print(f"reporting: {reported:6.1f} s")
    bars = {"seconds": (scored + reported, BAR_S), "GB at once": (memory.peak / 1e9, BAR_GB)}
    for what, (value, bar) in bars.items():
        print(f"{what}: {value:.1f} of {bar}: {'met' if value < bar else 'NOT MET'}")
    sys.exit(any(value >= bar for value, bar in bars.values()))


if __name__ == "__main__":
    main()
