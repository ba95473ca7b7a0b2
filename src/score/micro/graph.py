"""A question's gold graph, read from the question's text alone: what has to be found, from what, and by which code.

The parser is the inverse of `score.micro.tasks`; the oracle plans, demonstrates and judges with the graph.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from score.errors import ScoreError
from score.micro.backend import fact_sentence
from score.micro.world import NAMES, RELATIONS, World
from score.search.base import Result, render

SYMBOLS = {"plus": "+", "minus": "-", "times": "*"}


class NotOfThisWorld(ScoreError):
    """The question is not one that this world can ask."""


@dataclass(frozen=True)
class Node:
    """One thing to find. `thought` and `code` are templates: {0}, {1} stand for the prerequisites `needs`.

    `value` is what is found, `stdout` what the code prints, `variable` the name that keeps the value (math only).
    """

    thought: str
    code: str
    value: str
    stdout: str
    needs: tuple[int, ...] = ()
    variable: str | None = None


@dataclass(frozen=True)
class Graph:
    """The nodes of a question in an order that respects their prerequisites; the last one holds the answer."""

    plan: str
    nodes: tuple[Node, ...]

    @property
    def answer(self) -> str:
        return self.nodes[-1].value

    def ancestors(self, index: int) -> set[int]:
        """The nodes that node `index` rests on, itself included."""
        return {index}.union(*(self.ancestors(need) for need in self.nodes[index].needs))

    def step(self, index: int, defined: Collection[str] = ()) -> tuple[str, str]:
        """(thought, code) of a node; a prerequisite whose variable is not `defined` is written as its value."""
        node = self.nodes[index]
        operands = [self.operand(need, defined) for need in node.needs]
        return node.thought.format(*operands), node.code.format(*operands)

    def operand(self, index: int, defined: Collection[str]) -> str:
        node = self.nodes[index]
        return node.variable if node.variable in defined else node.value

    def final(self, defined: Collection[str] = ()) -> tuple[str, str]:
        """(thought, code) of the answering step."""
        text = self.operand(len(self.nodes) - 1, defined)
        return "Answer", f'final_answer_print("{text}")' if text in NAMES and text not in defined else f"final_answer_print({text})"


_CHAIN = rf"(?:(?:{'|'.join(RELATIONS)}) of (?:the )?)+\w+"
_FACTS = re.compile(rf"What is the ({_CHAIN})\?")
_DEEP = re.compile(rf"What is the ({_CHAIN}) (plus|minus) the ({_CHAIN})\?")
_LARGER = re.compile(rf"What is the larger of the ({_CHAIN}) and the ({_CHAIN})\?")
_MATH = re.compile(r"((?:\w+ has [^.?]+\. )+)How many coins has (\w+)\?")
_GIVEN = re.compile(r"(\w+) has (\d+) coins")
_CHANGE = re.compile(r"(\w+) has (\w+)'s coins (plus|minus|times) (\d+)")
_SUM = re.compile(r"(\w+) has (\w+)'s coins plus (\w+)'s")


def parse(question: str, world: World) -> Graph:
    """The gold graph of a question. Raises `NotOfThisWorld` if the text is none of the world's forms."""
    try:
        if match := _FACTS.fullmatch(question):
            nodes = _chain(match[1], world)
            return Graph(f"Plan: {_searches(nodes)}", tuple(nodes))
        if match := _DEEP.fullmatch(question):
            return _deep(match[1], match[3], match[2], world)
        if match := _LARGER.fullmatch(question):
            return _deep(match[1], match[2], "larger", world)
        if match := _MATH.fullmatch(question):
            return _math(match[1].removesuffix(". ").split(". "), match[2])
    except KeyError as error:
        raise NotOfThisWorld(f"question {question!r}: nothing is known of {error}") from None
    raise NotOfThisWorld(f"question {question!r} is not of the micro-world")


def _searches(nodes: list[Node]) -> str:
    return f"{len(nodes)} {'search' if len(nodes) == 1 else 'searches'}"


def _chain(text: str, world: World, start: int = 0) -> list[Node]:
    """The searches of "mentor of the rival of Kego"; `start` is the index of the first one in the graph."""
    *outer, name = text.replace(" of the ", " of ").split(" of ")
    nodes: list[Node] = []
    for relation in reversed(outer):
        value = world.facts[relation, name]
        needs = (start + len(nodes) - 1,) if nodes else ()
        query = f"{relation} of {'{0}' if nodes else name}"
        stdout = render([Result(title=name, snippet=fact_sentence(relation, name, value))])
        nodes.append(Node(f"Find {query}", f'print(web_search("{query}"))', value, stdout, needs))
        name = value
    return nodes


def _deep(left: str, right: str, operation: str, world: World) -> Graph:
    first = _chain(left, world)
    second = _chain(right, world, start=len(first))
    nodes = [*first, *second]
    a, b = int(first[-1].value), int(second[-1].value)
    value = str({"plus": a + b, "minus": a - b, "larger": max(a, b)}[operation])
    code = "print(max({0}, {1}))" if operation == "larger" else f"print({{0}} {SYMBOLS[operation]} {{1}})"
    nodes.append(Node("Compute", code, value, value, (len(first) - 1, len(nodes) - 1)))
    return Graph(f"Plan: {_searches(first)}, {_searches(second)}, {operation}", tuple(nodes))


def _math(sentences: list[str], target: str) -> Graph:
    """The statements that the target rests on, in the order of the text; the others are distractors."""
    nodes: dict[str, Node] = {}
    for sentence in sentences:
        node = _statement(sentence, nodes)
        nodes[node.variable] = node
    names = list(nodes)
    needed = sorted(Graph("", tuple(nodes.values())).ancestors(names.index(target) if target in names else -1))
    place = {old: new for new, old in enumerate(needed)}
    kept = [nodes[names[old]] for old in needed]
    kept = [Node(n.thought, n.code, n.value, n.stdout, tuple(place[i] for i in n.needs), n.variable) for n in kept]
    return Graph(f"Plan: compute {target}", tuple(kept))


def _statement(sentence: str, earlier: dict[str, Node]) -> Node:
    """The node of one sentence, e.g. "Tura has 3 less than Hene"; names in it must have been met (KeyError)."""
    names = list(earlier)
    if match := _GIVEN.fullmatch(sentence):
        name, expression, value, needs = match[1], match[2], int(match[2]), ()
    elif match := _CHANGE.fullmatch(sentence):
        name, other, symbol, number = match[1], match[2], SYMBOLS[match[3]], int(match[4])
        before = int(earlier[other].value)
        value = {"+": before + number, "-": before - number, "*": before * number}[symbol]
        expression, needs = f"{{0}} {symbol} {number}", (names.index(other),)
    elif match := _SUM.fullmatch(sentence):
        name, value = match[1], int(earlier[match[2]].value) + int(earlier[match[3]].value)
        expression, needs = "{0} + {1}", (names.index(match[2]), names.index(match[3]))
    else:
        raise NotOfThisWorld(f"statement {sentence!r} is not of the micro-world")
    return Node(f"Find {name}", f"{name} = {expression}\nprint({name})", str(value), str(value), needs, name)
