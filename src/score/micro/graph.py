"""A question's gold graph, read from the question's text alone: what has to be found, from what, and by which code.

The parser is the inverse of `score.micro.tasks`; the oracle plans, demonstrates and judges with the graph.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

from score.errors import ScoreError
from score.micro.backend import KnowledgeBase
from score.micro.world import NAMES, RELATIONS, World
from score.search.base import render


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
        operands = [self._operand(need, defined) for need in node.needs]
        return node.thought.format(*operands), node.code.format(*operands)

    def final(self, defined: Collection[str] = ()) -> tuple[str, str]:
        """(thought, code) of the answering step."""
        text = self._operand(len(self.nodes) - 1, defined)
        quoted = f'"{text}"' if self.answer in NAMES else text
        return "Answer", f"final_answer_print({quoted})"

    def _operand(self, index: int, defined: Collection[str]) -> str:
        node = self.nodes[index]
        return node.variable if node.variable in defined else node.value


_CHAIN = rf"\w+(?:'s (?:{'|'.join(RELATIONS)}))+"
_FACTS = re.compile(rf"What is ({_CHAIN})\?")
_DEEP = re.compile(rf"What is ({_CHAIN}) (plus|minus) ({_CHAIN})\?")
_LARGER = re.compile(rf"What is the larger of ({_CHAIN}) and ({_CHAIN})\?")
_STATEMENT = r"(\w+) has (\w+(?: [-+*] \w+)?) coins\. "
_MATH = re.compile(rf"((?:{_STATEMENT})+)How many coins has (?P<target>\w+)\?")
MOST_COUNTED = 5
"""Searches of a question up to which a plan counts them."""
_OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


@lru_cache(maxsize=4096)
def parse(question: str, world: World) -> Graph:
    """The gold graph of a question. Raises `NotOfThisWorld` if the text is none of the world's forms."""
    try:
        if match := _FACTS.fullmatch(question):
            nodes = _chain(match[1], world)
            return Graph(_plan([nodes]), tuple(nodes))
        if match := _DEEP.fullmatch(question):
            return _deep(match[1], match[3], match[2], world)
        if match := _LARGER.fullmatch(question):
            return _deep(match[1], match[2], "larger", world)
        if match := _MATH.fullmatch(question):
            return _math(dict(re.findall(_STATEMENT, match[1])), match["target"])
    except (KeyError, ValueError) as error:
        raise NotOfThisWorld(f"question {question!r} cannot be answered in the micro-world ({error!r})") from None
    raise NotOfThisWorld(f"question {question!r} has none of the micro-world's forms")


def _plan(branches: Sequence[Sequence[Node]], operation: str | None = None) -> str:
    """How many searches of each branch and what to do then; a long question's plan has no numbers.

    Counting far is the hardest thing in an episode: with numbers, most first errors of long episodes would be plans.
    """
    if sum(map(len, branches)) > MOST_COUNTED:
        return f"Plan: {operation or 'searches'}"
    counted = [f"{len(nodes)} {'search' if len(nodes) == 1 else 'searches'}" for nodes in branches]
    return "Plan: " + ", ".join([*counted, *([operation] if operation else [])])


def _chain(text: str, world: World, start: int = 0) -> list[Node]:
    """The searches of "Kego's rival's mentor"; `start` is the index of the first one in the graph."""
    name, *relations = text.split("'s ")
    nodes: list[Node] = []
    for relation in relations:
        query = f"{{0}}'s {relation}" if nodes else f"{name}'s {relation}"
        needs = (start + len(nodes) - 1,) if nodes else ()
        stdout = render(KnowledgeBase(world).search(f"{name}'s {relation}", 1))
        name = world.facts[relation, name]
        nodes.append(Node(f"Find {query}", f'print(web_search("{query}"))', name, stdout, needs))
    return nodes


def _deep(left: str, right: str, operation: str, world: World) -> Graph:
    """Two chains that end in numbers (ValueError if not), then one computation."""
    first = _chain(left, world)
    second = _chain(right, world, start=len(first))
    a, b = int(first[-1].value), int(second[-1].value)
    value, code = {
        "plus": (a + b, "print({0} + {1})"),
        "minus": (a - b, "print({0} - {1})"),
        "larger": (max(a, b), "print(max({0}, {1}))"),
    }[operation]
    needs = (len(first) - 1, len(first) + len(second) - 1)
    last = Node("Compute", code, str(value), str(value), needs)
    return Graph(_plan([first, second], operation), (*first, *second, last))


def _math(formulas: dict[str, str], target: str) -> Graph:
    """The statements that the target rests on, in the order of the text; the others are distractors."""
    needed = {target}
    for name in reversed(formulas):  # a statement rests on earlier ones only, so one pass backwards meets them all
        if name in needed:
            needed |= formulas.keys() & formulas[name].split()
    place: dict[str, int] = {}
    nodes: list[Node] = []
    for name in filter(needed.__contains__, formulas):
        words = formulas[name].split()
        value = str(calculate([nodes[place[word]].value if word in place else word for word in words]))
        needs = tuple(place[word] for word in words if word in place)
        template = " ".join(f"{{{needs.index(place[word])}}}" if word in place else word for word in words)
        place[name] = len(nodes)
        nodes.append(Node(f"Find {name}", f"{name} = {template}\nprint({name})", value, value, needs, name))
    if target not in place:
        raise KeyError(target)
    return Graph(f"Plan: compute {target}", tuple(nodes))


def calculate(words: Sequence[str]) -> int:
    """The value of ["5"] or ["5", "-", "3"]; ValueError where a word is no number."""
    if len(words) == 1:
        return int(words[0])
    left, symbol, right = words
    return _OPERATORS[symbol](int(left), int(right))
