"""An oracle that errs: a teacher whose quality is a number, for the question what a worse teacher costs.

With probability 1 - `accuracy` it names another turn than the earliest wrong one, and with the same probability its
rewritten turn is wrong: one number for both, drawn apart, so that a correction is right throughout with probability
accuracy squared. It plans, demonstrates and judges as the oracle does. Every draw depends on the seed and on what is
asked, so the same request gets the same reply; with accuracy 1 it is the oracle.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from score.micro.mutations import neighbour, spoil
from score.micro.oracle import Oracle
from score.micro.world import World
from score.records import Step, derive_seed


class Degraded(Oracle):
    """Right with probability `accuracy` where it locates and where it rewrites."""

    def __init__(self, world: World, leap: float = 0.4, seed: int = 0, accuracy: float = 1.0) -> None:
        super().__init__(world, leap, seed)
        self.accuracy = accuracy

    def first_error(self, question: str, plan: str | None, steps: Sequence[Step]) -> int | None:
        """The earliest wrong turn, or one of the other turns, each as likely as the next."""
        right = super().first_error(question, plan, steps)
        rng = self._rng("locate", question, plan, steps)
        others = [turn for turn in range(len(steps) + 1) if turn != right]
        return rng.choice(others) if rng.random() >= self.accuracy and others else right

    def rewrite(self, question: str, plan: str | None, steps: Sequence[Step], k: int) -> str | tuple[str, str]:
        """The corrected turn, or one that is wrong: another question's plan, or a step with a mutation."""
        right = super().rewrite(question, plan, steps, k)
        rng = self._rng("rewrite", question, plan, steps[: max(k - 1, 0)], k)
        if rng.random() < self.accuracy:
            return right
        if isinstance(right, str):
            other = neighbour(question, self.world, rng)
            return other.plan if other else right
        progress = self.progress(question, steps[: k - 1])
        nodes = [node for i, node in enumerate(progress.graph.nodes) if i in progress.done]
        known = {node.variable if node.variable in progress.defined else node.value: node.value for node in nodes}
        return spoil(right, known, self.world, rng)

    def _rng(self, what: str, question: str, plan: str | None, steps: Sequence[Step], *more: int) -> random.Random:
        texts = [(step.code, step.observation) for step in steps]
        return random.Random(derive_seed("micro-accuracy", self.seed, what, question, plan, texts, *more))
