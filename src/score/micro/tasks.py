"""Two worlds of twelve micro-benchmarks in the paper's three groups: arithmetic chains, multi-hop facts, deep search.

    python -m score.micro.tasks --split test --per-benchmark 40 --seed 0 --out test.jsonl

writes one JSON `Task` per line. A question belongs to a split by the hash of its text, so the splits are disjoint
whatever the seeds and sizes. The gold answer comes from `score.micro.graph`, which reads the question's text.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from score.cli import run
from score.errors import ScoreError
from score.jsonl import write_rows
from score.micro.graph import Graph, parse
from score.micro.world import NAMES, NUMBER, RELATIONS, World, make_world
from score.records import Task, content_key, derive_seed

SIZES = {"train": 60, "development": 20, "test": 40}
"""Split -> questions per benchmark, unless told otherwise."""
_SHARES = ("train",) * 6 + ("development",) * 2 + ("test",) * 2
_ATTEMPTS = 20_000


def split_of(question: str) -> str:
    """The split that a question belongs to."""
    return _SHARES[int(content_key(question), 16) % len(_SHARES)]


def _chain(rng: random.Random, world: World, hops: int, numeric: bool) -> str:
    """Like "Kego's rival's mentor": `hops` facts, of which only the last may be a number, and is if `numeric`."""
    name = rng.choice(NAMES)
    relations: list[str] = []
    here = name
    for hop in range(1, hops + 1):
        known = {relation: value for relation, (subject, value) in RELATIONS.items() if subject == world.kinds[here]}
        wanted = {NUMBER} if numeric and hop == hops else set(known.values()) - ({NUMBER} if hop < hops else set())
        relations.append(rng.choice([relation for relation, value in known.items() if value in wanted]))
        here = world.facts[relations[-1], here]
    return "'s ".join((name, *relations))


def _hop(rng: random.Random, world: World, hops: int) -> str:
    return f"What is {_chain(rng, world, hops, numeric=False)}?"


def _deep(rng: random.Random, world: World, left: int, right: int) -> str:
    a, b = (_chain(rng, world, hops, numeric=True) for hops in (left, right))
    return rng.choice((f"What is {a} plus {b}?", f"What is {a} minus {b}?", f"What is the larger of {a} and {b}?"))


def _math(rng: random.Random, world: World, statements: int, distractor: bool = False) -> str:
    names = rng.sample(NAMES, statements + distractor)
    formulas = [f"{names[0]} has {rng.randint(2, 9)}"]
    formulas += [f"{names[i]} has {_formula(rng, names[:i])}" for i in range(1, statements)]
    if distractor:
        place = rng.randint(1, statements)
        formulas.insert(place, f"{names[-1]} has {_formula(rng, names[:place])}")
    return f"{' coins. '.join(formulas)} coins. How many coins has {names[statements - 1]}?"


def _formula(rng: random.Random, earlier: list[str]) -> str:
    """A formula that rests on the last of the `earlier` names, so that the statements form a chain."""
    symbol = rng.choice("+-*")
    if len(earlier) > 1 and rng.random() < 0.25:
        return f"{earlier[-1]} + {rng.choice(earlier[:-1])}"
    return f"{earlier[-1]} {symbol} {rng.randint(2, 9)}"


Draw = Callable[[random.Random, World], str]
BENCHMARKS: dict[str, tuple[str, Draw]] = {
    "math2": ("math", partial(_math, statements=2)),
    "math3": ("math", partial(_math, statements=3)),
    "math4": ("math", partial(_math, statements=4)),
    "math3x": ("math", partial(_math, statements=3, distractor=True)),
    **{f"hop{hops}": ("facts", partial(_hop, hops=hops)) for hops in (2, 3, 4, 5)},
    **{f"deep{a}{b}": ("deep", partial(_deep, left=a, right=b)) for a, b in ((1, 1), (2, 1), (1, 2), (2, 2))},
}
"""Benchmark -> (group, how to draw a question)."""
LONG: dict[str, tuple[str, Draw]] = {
    **{f"math{n}": ("math", partial(_math, statements=n)) for n in (7, 8, 9, 11)},
    **{f"hop{hops}": ("facts", partial(_hop, hops=hops)) for hops in (7, 8, 9, 11)},
    **{f"deep{a}{b}": ("deep", partial(_deep, left=a, right=b)) for a, b in ((3, 3), (3, 4), (4, 4), (5, 5))},
}
"""The same for episodes of 8 to 12 steps."""
WORLDS = {"micro": BENCHMARKS, "micro_long": LONG}


def _sound(graph: Graph) -> bool:
    """No two nodes print the same (a step could not be told from another) and numbers stay small and positive."""
    printed = [node.stdout for node in graph.nodes]
    return len(set(printed)) == len(printed) and all(
        node.value in NAMES or 0 < int(node.value) < 200 for node in graph.nodes
    )


def make_tasks(benchmark: str, split: str, count: int, seed: int = 0, world: World | None = None) -> list[Task]:
    """The first `count` distinct tasks of a benchmark's split. Raises `ScoreError` if there are not that many."""
    world = world or make_world()
    group, draw = (BENCHMARKS | LONG)[benchmark]
    rng = random.Random(derive_seed("micro-tasks", benchmark, split, seed))
    tasks: dict[str, Task] = {}
    for _ in range(_ATTEMPTS):
        if len(tasks) == count:
            return list(tasks.values())
        question = draw(rng, world)
        if question in tasks or split_of(question) != split:
            continue
        graph = parse(question, world)
        if _sound(graph):
            tasks[question] = Task(
                id=f"{benchmark}-{content_key(question)[:10]}",
                question=question,
                answers=(graph.answer,),
                dataset=benchmark,
                meta={"group": group, "steps": len(graph.nodes) + 1},
            )
    raise ScoreError(f"micro tasks: {benchmark} has only {len(tasks)} {split} questions, ask for fewer than {count}")


def all_tasks(split: str, per_benchmark: int, seed: int = 0, benchmarks: Iterable[str] = BENCHMARKS) -> Iterator[Task]:
    for benchmark in benchmarks:
        yield from make_tasks(benchmark, split, per_benchmark, seed)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m score.micro.tasks", description=__doc__.partition("\n")[0])
    parser.add_argument("--split", choices=SIZES, required=True)
    parser.add_argument("--per-benchmark", type=int, help=f"default: {SIZES}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--world", choices=WORLDS, default="micro", help="whose benchmarks, if none is named")
    parser.add_argument("--benchmark", action="append", choices=[*BENCHMARKS, *LONG], default=[])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    count = args.per_benchmark or SIZES[args.split]
    names = args.benchmark or WORLDS[args.world]
    write_rows(args.out, (task.to_json() for task in all_tasks(args.split, count, args.seed, names)))


if __name__ == "__main__":
    run(main)
