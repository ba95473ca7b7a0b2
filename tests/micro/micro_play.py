"""Plays episodes of the micro-world in this process."""

from fakes import LocalSession
from score.micro.backend import KnowledgeBase
from score.micro.oracle import Oracle
from score.micro.world import make_world
from score.records import Step
from score.search.base import render


def session() -> LocalSession:
    knowledge = KnowledgeBase(make_world())
    return LocalSession({"web_search": lambda query: render(knowledge.search(query, 1))})


def run(sandbox: LocalSession, thought: str, code: str) -> Step:
    seen = sandbox.run(code)
    return Step(thought, code, seen.text, seen.error)


def demonstration(oracle: Oracle, question: str) -> tuple[list[Step], str | None]:
    """The steps of the oracle's episode and its answer."""
    sandbox, steps = session(), []
    while sandbox.answer is None and len(steps) < 16:
        steps.append(run(sandbox, *oracle.demonstrate(question, steps)))
    return steps, sandbox.answer
