"""Errors planted on purpose, by name and at a known turn: what a teacher's localisation is measured with.

A `Plant` is a right episode of a question up to turn k, an error at k, and a naive student who goes on from what it
then believes. The turn is known because the error was put there. Nothing here judges a step, and nothing of the oracle
that does (`score.micro.progress`) is used: the audit of a teacher, the oracle included, must not rest on its own
checker.

Pure: `score.correct.planting` executes the turns, and draws again where an error turned out to be none.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from score.micro.backend import KnowledgeBase
from score.micro.graph import Graph, calculate, parse
from score.micro.world import RELATIONS, World
from score.records import Task, derive_seed
from score.search.base import render

Turn = tuple[str, str]
"""(thought, code) of a step."""
Known = Mapping[str, str]
"""How code writes what was found before a turn (a variable, or the value itself) -> its value."""


@dataclass(frozen=True)
class Plant:
    """An attempt that errs first at turn `k`; turn 0 is the plan.

    `graph` is what the student follows: the question's, or a neighbour's where the plan is wrong. `wrong` holds the
    planted turns. `lapse` is the first turn that prints something wrong: k, but for a value that is right by luck.
    """

    task: Task
    mutation: str
    k: int
    lapse: int
    graph: Graph
    wrong: Mapping[int, Turn]
    seed: int


def plant(task: Task, world: World, mutation: str, seed: int) -> Plant | None:
    """The task with one error of that name, at a turn drawn from all those that can have it; None if none can."""
    rng = random.Random(derive_seed("micro-plant", mutation, task.question, seed))
    graph = parse(task.question, world)
    if mutation == WRONG_PLAN:
        other = neighbour(task.question, world, rng)
        return other and Plant(task, mutation, 0, 0, other, {}, seed)
    turns = right_turns(graph)
    for k in rng.sample(range(1, len(turns) + 1), len(turns)):
        wrong = MUTATIONS[mutation](turns[k - 1], known_before(graph, k), world, rng)
        if wrong is None:
            continue
        if mutation != LUCKY:
            return Plant(task, mutation, k, k, graph, {k: wrong}, seed)
        for later in rng.sample(range(k + 1, len(turns) + 1), len(turns) - k):
            if lapse := spoil(turns[later - 1], known_before(graph, later), world, rng):
                return Plant(task, mutation, k, later, graph, {k: wrong, later: lapse}, seed)
    return None


def right_turns(graph: Graph) -> list[Turn]:
    """The steps of an episode without leaps, the answer included."""
    variables = [node.variable for node in graph.nodes if node.variable]
    return [*(graph.step(i, variables) for i in range(len(graph.nodes))), graph.final(variables)]


def known_before(graph: Graph, k: int) -> dict[str, str]:
    return {node.variable or node.value: node.value for node in graph.nodes[: k - 1]}


def next_turn(plant: Plant, world: World, seen: Sequence[str]) -> Turn:
    """The turn after those that printed `seen`: a planted one, or the plan's next with what the student believes.

    It believes what it reads, makes something up where it reads no value, and never tries a step again.
    """
    turn, nodes = len(seen) + 1, plant.graph.nodes
    if turn in plant.wrong:
        return plant.wrong[turn]
    beliefs = [_belief(plant, world, i, printed) for i, printed in enumerate(seen[: len(nodes)])]
    if turn <= len(nodes):
        operands = [beliefs[need] for need in nodes[turn - 1].needs]
        return nodes[turn - 1].thought.format(*operands), nodes[turn - 1].code.format(*operands)
    if turn == len(nodes) + 1:
        return _answer(beliefs[-1], variable=beliefs[-1] == nodes[-1].variable)
    return _answer(_made_up(plant, world, len(nodes) - 1))  # handing the answer in has failed


_READ = re.compile(r".* is (\w+)\.|(-?\d+)", re.DOTALL)


def _belief(plant: Plant, world: World, index: int, printed: str) -> str:
    """How the student writes what a node gave: its variable, or the value that it read or made up."""
    match = _READ.fullmatch(printed.strip())
    if match is None:
        return _made_up(plant, world, index)
    return plant.graph.nodes[index].variable or match[1] or match[2]


def _made_up(plant: Plant, world: World, index: int) -> str:
    """A value of the right kind that is not the right one."""
    right = plant.graph.nodes[index].value
    rng = random.Random(derive_seed("micro-made-up", plant.task.question, plant.seed, index))
    alike = world.names(world.kinds[right]) if right in world.kinds else map(str, range(2, 100))
    return rng.choice([value for value in alike if value != right])


def _answer(written: str, *, variable: bool = False) -> Turn:
    bare = variable or written.lstrip("-").isdigit()
    return "Answer", f"final_answer_print({written})" if bare else f'final_answer_print("{written}")'


# What steps look like, and how they are changed. A mutation takes a right step, what is known before it, the world and
# a random state; it gives the wrong step, or None where a step has nothing to change in that way.

Mutation = Callable[[Turn, Known, World, random.Random], Turn | None]

_FORMULA = re.compile(r"(\w+) = (\w+)(?: ([-+*]) (\w+))?\nprint\(\1\)")
_COMPUTATION = re.compile(r"print\((?:(\w+) ([-+]) (\w+)|(max|min)\((\w+), (\w+)\))\)")
_SEARCH = re.compile(r'print\(web_search\("(\w+)\'s (\w+)"\)\)')
_FINAL = re.compile(r'final_answer_print\("?(\w+)"?\)')
_DIGITS = tuple("23456789")
_FUNCTIONS = {"max": max, "min": min}


@dataclass(frozen=True)
class _Sum:
    """A calculating step: `symbol` is one of + - * max min, or None where a variable gets a number."""

    frame: str
    operands: tuple[str, ...]
    symbol: str | None

    @property
    def code(self) -> str:
        words = f"{self.symbol}({{}}, {{}})" if self.symbol in _FUNCTIONS else f"{{}} {self.symbol} {{}}"
        return self.frame.replace("{}", words.format(*self.operands) if self.symbol else self.operands[0])

    def value(self, known: Known) -> int:
        numbers = [known.get(operand, operand) for operand in self.operands]
        if self.symbol in _FUNCTIONS:
            return _FUNCTIONS[self.symbol](*map(int, numbers))
        return calculate([numbers[0], self.symbol, numbers[1]] if self.symbol else numbers)


def _read_sum(code: str) -> _Sum | None:
    if match := _FORMULA.fullmatch(code):
        name, left, symbol, right = match.groups()
        return _Sum(f"{name} = {{}}\nprint({name})", (left, right) if symbol else (left,), symbol)
    if match := _COMPUTATION.fullmatch(code):
        left, symbol, right = match.groups()[:3] if match[2] else (match[5], match[4], match[6])
        return _Sum("print({})", (left, right), symbol)
    return None


def _other_sum(thought: str, right: _Sum, others: Sequence[_Sum], known: Known, rng: random.Random) -> Turn | None:
    """One of the other sums that has another value."""
    differing = [other for other in others if other.value(known) != right.value(known)]
    return (thought, rng.choice(differing).code) if differing else None


def wrong_operand(turn: Turn, known: Known, world: World, rng: random.Random) -> Turn | None:
    """Another number or variable in a sum; another known value handed in."""
    thought, code = turn
    if right := _read_sum(code):
        variables = [written for written, value in known.items() if written != value]
        changed = [
            (*right.operands[:i], new, *right.operands[i + 1 :])
            for i, old in enumerate(right.operands)
            for new in (*variables, *_near(old))
        ]
        others = [_Sum(right.frame, operands, right.symbol) for operands in changed]
        return _other_sum(thought, right, others, known, rng)
    if match := _FINAL.fullmatch(code):
        value = known.get(match[1], match[1])
        others = [written for written, other in known.items() if other != value]
        return _known_answer(rng.choice(others), known) if others else None
    return None


def _near(operand: str) -> tuple[str, ...]:
    """Numbers that might be taken for an operand: one digit for one digit, else a few more or less."""
    if len(operand) == 1 or not operand.isdigit():
        return _DIGITS
    return tuple(str(int(operand) + step) for step in range(-9, 10) if step)


def _known_answer(written: str, known: Known) -> Turn:
    return _answer(written, variable=known[written] != written)


def wrong_hop(turn: Turn, known: Known, world: World, rng: random.Random) -> Turn | None:
    """A search for another relation of the entity, or for the relation of another entity of its kind."""
    match = _SEARCH.fullmatch(turn[1])
    if match is None:
        return None
    name, relation = match.groups()
    subject = RELATIONS[relation][0]
    relations = [(name, other) for other, (kind, _) in RELATIONS.items() if kind == subject and other != relation]
    entities = [(other, relation) for other in world.names(subject) if other != name]
    entity, followed = rng.choice(rng.choice([relations, entities]))
    query = f"{entity}'s {followed}"
    return f"Find {query}", f'print(web_search("{query}"))'


def wrong_operation(turn: Turn, known: Known, world: World, rng: random.Random) -> Turn | None:
    """Another operation on the same operands."""
    thought, code = turn
    right = _read_sum(code)
    if right is None or right.symbol is None:
        return None
    symbols = "+-*" if _FORMULA.fullmatch(code) else ("+", "-", "max", "min")
    others = [_Sum(right.frame, right.operands, symbol) for symbol in symbols]
    return _other_sum(thought, right, others, known, rng)


def premature_answer(turn: Turn, known: Known, world: World, rng: random.Random) -> Turn | None:
    """The value found last handed in as the answer, before the answer is found."""
    if not known or _FINAL.fullmatch(turn[1]):
        return None
    return _known_answer(list(known)[-1], known)


def crash(turn: Turn, known: Known, world: World, rng: random.Random) -> Turn | None:
    """The right step with a bracket left open or a function's name misspelt."""
    thought, code = turn
    return thought, rng.choice([code[:-1], code.replace("print(", "prnt(", 1)])


def lucky_value(turn: Turn, known: Known, world: World, rng: random.Random) -> Turn | None:
    """A step that prints what the right one does and has not found it: a sum of unrelated numbers, or the search
    result typed from nowhere."""
    thought, code = turn
    if right := _read_sum(code):
        more = int(rng.choice(_DIGITS))
        return thought, _Sum(right.frame, (str(right.value(known) + more), str(more)), "-").code
    if match := _SEARCH.fullmatch(code):
        found = render(KnowledgeBase(world).search("{}'s {}".format(*match.groups()), 1))
        return thought, f"print({json.dumps(found)})"
    return None


LUCKY, WRONG_PLAN = "lucky_value", "wrong_plan"
MUTATIONS: dict[str, Mutation] = {
    "wrong_operand": wrong_operand,
    "wrong_hop": wrong_hop,
    "wrong_operation": wrong_operation,
    "premature_answer": premature_answer,
    "crash": crash,
    LUCKY: lucky_value,
}
"""Mutations of one step, by name."""
EVERY = (*MUTATIONS, WRONG_PLAN)


def spoil(turn: Turn, known: Known, world: World, rng: random.Random) -> Turn:
    """A wrong step in place of a right one: a wrong operand, hop or operation, or else one that crashes."""
    for mutation in rng.sample((wrong_operand, wrong_hop, wrong_operation), 3):
        if wrong := mutation(turn, known, world, rng):
            return wrong
    return crash(turn, known, world, rng)


_DEEP = re.compile(r"What is (?:the larger of )?(.*) (?:plus|minus|and) (.*)\?")
_TARGET = re.compile(r"(\w+)\?$")


def neighbour(question: str, world: World, rng: random.Random) -> Graph | None:
    """The graph of a question that this one may be taken for: other plan, other answer.

    A chain that ends earlier, another operation on two chains, another quantity asked for.
    """
    right = parse(question, world)
    if match := _DEEP.fullmatch(question):
        a, b = match.groups()
        texts = [f"What is {a} plus {b}?", f"What is {a} minus {b}?", f"What is the larger of {a} and {b}?"]
    elif right.nodes[0].variable:
        texts = [_TARGET.sub(f"{node.variable}?", question) for node in right.nodes]
    else:
        links = question.removesuffix("?").split("'s ")
        texts = ["'s ".join(links[:count]) + "?" for count in range(2, len(links))]
    graphs = [parse(text, world) for text in texts]
    other = [graph for graph in graphs if graph.plan != right.plan and graph.answer != right.answer]
    return rng.choice(other) if other else None
