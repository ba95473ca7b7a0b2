"""Attempts with an error planted at a known turn, executed in the sandbox: what a teacher is audited with.

Every turn of an attempt really ran, so what it printed is true; the turn of its first error is known from
`score.micro.mutations`, not from anybody's judgement. An error that turned out to be none (it printed what the question
asks for, or the attempt still came to the right answer) is drawn again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from score.agent.episode import Episode
from score.agent.protocol import plan_text, step_text
from score.config.schema import Protocol as Limits
from score.data.metric import by_rules
from score.engine.base import Completion
from score.errors import ScoreError
from score.micro.graph import parse
from score.micro.mutations import LUCKY, Plant, next_turn, plant
from score.micro.tasks import make_tasks
from score.micro.world import World
from score.records import Task, Trajectory, content_key, derive_seed
from score.sandbox.base import SandboxPool, Tools

LIMITS = Limits(max_steps=16)
"""Enough for every planted attempt in every world."""
_DRAWS = 20


@dataclass(frozen=True)
class Planted:
    """A planted error and the attempt that it led to."""

    plant: Plant
    attempt: Trajectory


def planted(
    mutations: Sequence[str],
    benchmarks: Sequence[str],
    count: int,
    seed: int,
    world: World,
    pool: SandboxPool,
    tools: Tools,
) -> list[Planted]:
    """`count` attempts per mutation, spread evenly over the benchmarks that can have it; the same for the same seed.

    The questions are development questions. Raises `ScoreError` where there are not as many different attempts.
    """  # fmt: skip
    tasks = _questions(benchmarks, count, seed, world)
    return [found for mutation in mutations for found in _of(mutation, tasks, count, seed, world, pool, tools)]


def _of(
    mutation: str, tasks: Sequence[Task], count: int, seed: int, world: World, pool: SandboxPool, tools: Tools
) -> list[Planted]:
    found: dict[str, Planted] = {}
    for draw, task in _draws(tasks):
        if len(found) == count:
            break
        drawn = plant(task, world, mutation, derive_seed(seed, draw))
        if drawn is None:
            continue
        executed = Planted(drawn, play(drawn, world, pool, tools))
        if is_error(executed, world):
            found.setdefault(content_key(task.id, [step.code for step in executed.attempt.steps]), executed)
    if len(found) < count:
        raise ScoreError(f"audit: {mutation}: only {len(found)} different attempts can be made here, not {count}")
    return list(found.values())


def _draws(tasks: Sequence[Task]) -> Iterator[tuple[int, Task]]:
    for draw in range(_DRAWS):
        for task in tasks:
            yield draw, task


def _questions(benchmarks: Sequence[str], count: int, seed: int, world: World) -> list[Task]:
    """One of each benchmark, then the next of each; a third of the benchmarks alone would have enough."""
    each = -(-3 * count // len(benchmarks))
    lists = [make_tasks(benchmark, "development", each, seed, world) for benchmark in benchmarks]
    return [task for round_ in zip(*lists, strict=True) for task in round_]


def play(plant: Plant, world: World, pool: SandboxPool, tools: Tools) -> Trajectory:
    """Executes an attempt from its plan to its end. Raises `InfrastructureError` if the sandbox fails."""
    episode = Episode(plant.task, LIMITS, seed=plant.seed)
    episode.take(Completion(plan_text(plant.graph.plan)))
    with pool.open(tools) as session:
        while episode.stop is None:
            turn = next_turn(plant, world, [step.observation or "" for step in episode.steps])
            episode.observe(session.run(episode.take(Completion(step_text(*turn)))))
    return episode.trajectory(mutation=plant.mutation, k=plant.k)


def is_error(planted: Planted, world: World) -> bool:
    """Whether the attempt ends wrong and its error prints nothing that the question asks for; by what was executed."""
    plant, attempt = planted.plant, planted.attempt
    if by_rules(plant.task, attempt.answer) == 1.0:
        return False
    if plant.k == 0:
        return True
    nodes = parse(plant.task.question, world).nodes
    printed = [(step.observation or "").strip() for step in attempt.steps]
    if plant.mutation == LUCKY and printed[plant.k - 1] != nodes[plant.k - 1].stdout:
        return False
    handed_in = attempt.answer is not None and plant.lapse == len(attempt.steps)
    return handed_in or printed[plant.lapse - 1] not in {node.stdout for node in nodes}
