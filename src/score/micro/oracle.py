"""The oracle teacher: with a question's gold graph it plans, demonstrates, finds the earliest wrong step, rewrites it.

Pure. A demonstration *leaps*: with probability `leap` the teacher skips a step because it knows what the step would
find, which a student can imitate but not reproduce. A correction never leaps: it is one granular step, written in the
student's own context. This mismatch is built in by hand; it is the paper's argument (data that fit the student's
ability) in miniature.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from score.micro.graph import Graph, parse
from score.micro.progress import Progress
from score.micro.world import World
from score.records import Step, derive_seed


class Oracle:
    """Every method raises `NotOfThisWorld` for a question that the world cannot ask."""

    def __init__(self, world: World, leap: float = 0.4, seed: int = 0) -> None:
        self.world, self.leap, self.seed = world, leap, seed

    def graph(self, question: str) -> Graph:
        return parse(question, self.world)

    def plan(self, question: str) -> str:
        """The content of <first_thought>: how many steps of which kind."""
        return self.graph(question).plan

    def skipped(self, question: str) -> frozenset[int]:
        """The nodes that a demonstration leaps over: never the first one, and the same ones at every call."""
        rng = random.Random(derive_seed("micro-leap", self.seed, question))
        return frozenset(i for i, _ in enumerate(self.graph(question).nodes) if rng.random() < self.leap and i > 0)

    def demonstrate(self, question: str, steps: Sequence[Step]) -> tuple[str, str]:
        """(thought, code) of the next step of a demonstration, leaps included."""
        return self._next(question, steps, self.skipped(question))

    def rewrite(self, question: str, plan: str | None, steps: Sequence[Step], k: int) -> str | tuple[str, str]:
        """The corrected step k in the context of the k - 1 verified `steps`: a plan for k = 0, else (thought, code)."""
        return self.plan(question) if k == 0 else self._next(question, steps[: k - 1], frozenset())

    def first_error(self, question: str, plan: str | None, steps: Sequence[Step]) -> int | None:
        """The earliest wrong turn: 0 = the plan, 1.. = a step, None = no wrong turn.

        A plan is right if it reads like the gold plan. A step is right if it ran without error and printed what one of
        the undone nodes prints; this node and all it rests on then count as done, so other orders and equivalent code
        pass. An answering step is right if it answers with the gold value. An episode that was cut short may have no
        wrong turn.
        """
        graph = self.graph(question)
        if plan is None or plan.split() != graph.plan.split():
            return 0
        progress = Progress(graph)
        for k, step in enumerate(steps, start=1):
            if not progress.take(step):
                return k
        return None

    def progress(self, question: str, steps: Sequence[Step]) -> Progress:
        """How far the steps have come."""
        progress = Progress(self.graph(question))
        for step in steps:
            progress.take(step)
        return progress

    def _next(self, question: str, steps: Sequence[Step], skipped: frozenset[int]) -> tuple[str, str]:
        graph, progress = self.graph(question), self.progress(question, steps)
        todo = [i for i in range(len(graph.nodes)) if i not in progress.done | skipped]
        if not todo or len(graph.nodes) - 1 in progress.done:
            return graph.final(progress.defined)
        return graph.step(todo[0], progress.defined)
