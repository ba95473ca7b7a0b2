"""An agent attempts tasks: the one loop behind rollouts, evaluation and the student's part of correction.

Finished attempts are kept in a work file by content key; a killed job continues with what is missing. Attempts that
met an infrastructure failure are tried again by the next run, and stay in the result under that name if it persists.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from score import prompts, search
from score.agent.drivers import run_episodes
from score.agent.episode import Episode, Forced
from score.agent.sessions import Sessions
from score.config import lineage
from score.config.schema import Config, Sampling
from score.engine import digest_of, open_engine
from score.engine.base import Engine
from score.errors import InfrastructureError, ScoreError
from score.fingerprint import deciding
from score.jsonl import ResumableRows
from score.progress import Progress
from score.provenance import file_digest
from score.records import StopReason, Task, Trajectory, content_key, derive_seed
from score.sandbox.base import Limits, SandboxPool, Tools
from score.shards import WHOLE, Shard
from score.usage import Usage

log = logging.getLogger("attempts")


@dataclass(frozen=True)
class Attempt:
    """What is to be attempted: a task from its start or from given turns, and a number that tells attempts apart."""

    task: Task
    forced: tuple[Forced, ...] = ()
    number: int = 0


@dataclass(frozen=True)
class Acting:
    """An agent ready to act: its engine, sandbox and tools, and the identity that enters keys and seeds."""

    config: Config
    agent: str
    seed: int
    digest: str
    engine: Engine
    pool: SandboxPool
    tools: Tools
    system: str | None = None
    identity: dict = field(default_factory=dict)

    def counted(self, usage: Usage) -> Acting:
        """The same agent, what it asks of its model being counted."""
        teacher = self.config.roles.teacher == lineage.agent(self.config, self.agent).model
        return replace(self, engine=usage.counted(self.engine, "teacher" if teacher else "student"))

    def run(
        self,
        attempts: Sequence[Attempt],
        sampling: Sampling,
        rows: ResumableRows,
        label: str,
        plan: Sampling | None = None,
        sessions: Sessions | None = None,
    ) -> list[Trajectory]:
        """One trajectory per attempt, in order; finished ones are read from `rows`, new ones appended to it.

        Attempts that an infrastructure failure ended are tried once more before they are left at that.
        """
        for again in (False, True):
            done = self._pass(attempts, sampling, rows, f"{label}, second try" if again else label, plan, sessions)
            failed = sum(trajectory.stop == StopReason.INFRASTRUCTURE_ERROR for trajectory in done)
            if not failed:
                break
            log.warning("%s: %d of %d attempts met an infrastructure failure", label, failed, len(done))
        return done

    def _pass(
        self,
        attempts: Sequence[Attempt],
        sampling: Sampling,
        rows: ResumableRows,
        label: str,
        plan: Sampling | None,
        sessions: Sessions | None,
    ) -> list[Trajectory]:
        keys = [self._key(attempt, sampling, plan) for attempt in attempts]
        finished = {
            key: row for key in keys if (row := rows.done.get(key)) and row["stop"] != StopReason.INFRASTRUCTURE_ERROR
        }
        progress = Progress(label, len(attempts), done=len(finished))
        missing = [(key, attempt) for key, attempt in zip(keys, attempts, strict=True) if key not in finished]
        running: dict[Episode, str] = {}

        def episodes() -> Iterator[Episode]:
            for key, attempt in missing:
                seed = derive_seed(self.seed, attempt.task.id, attempt.number)
                episode = Episode(
                    attempt.task, self.config.protocol, seed=seed, forced=attempt.forced, system=self.system
                )
                running[episode] = key
                yield episode

        def keep(episode: Episode) -> None:
            key = running.pop(episode)
            row = episode.trajectory(agent=self.agent, run_seed=self.seed, model=self.digest).to_json()
            rows.append(key, row)
            finished[key] = row
            progress.tick()

        run_episodes(
            episodes(), self.engine, sampling, self.pool, self.tools, keep, plan_sampling=plan, sessions=sessions
        )
        return [Trajectory.from_json({k: v for k, v in finished[key].items() if k != "key"}) for key in keys]

    def _key(self, attempt: Attempt, sampling: Sampling, plan: Sampling | None) -> str:
        forced = [(turn.message.content, turn.observation) for turn in attempt.forced]
        samplings = [sampling.model_dump(), plan and plan.model_dump()]
        task = [attempt.task.id, attempt.task.question, attempt.task.answers, attempt.task.meta.get("metric")]
        return content_key(task, forced, attempt.number, samplings, self.seed, self.digest, self.system, self.identity)


def require_outcomes(trajectories: Sequence[Trajectory]) -> None:
    """Of a whole stage or shard. Raises `InfrastructureError` if none of several attempts has an outcome: something is
    down, and a run that goes on would take that for its result."""
    broken = [trajectory for trajectory in trajectories if trajectory.stop == StopReason.INFRASTRUCTURE_ERROR]
    if len(broken) == len(trajectories) > 1:
        raise InfrastructureError(
            f"none of {len(broken)} attempts has an outcome; the first, {broken[0].task.id}: "
            f"{broken[0].meta.get('failure', 'no reason given')}; mend that and run it again"
        )


@contextlib.contextmanager
def acting(config: Config, agent: str, seed: int, root: Path, log: Path, tools: Tools) -> Iterator[Acting]:
    """Opens an agent for the time of a `with` block.

    Args:
        tools: opened by the caller before any model, so that a missing key costs no time.
        root: the experiment's results folder; a trained agent's model is in `train/<run>/model` below it.
        log: output of a server that this starts.
    """
    entry = lineage.agent(config, agent)
    model = config.models[lineage.base_model(config, agent)]
    path = None if entry.method == "prompt" else str(trained_model(root, agent, seed))
    digest = digest_of(model, path)
    identity = {"protocol": deciding(config.protocol), "search": deciding(config.search)}
    if config.search.corpus:
        identity["corpus"] = file_digest([Path(config.search.corpus)])
    with (
        open_engine(model, log, path=path) as engine,
        sandbox(config) as pool,
    ):
        yield Acting(
            config, agent, seed, digest, engine, pool, tools,
            system=prompts.load("agent").system if entry.instructed else None, identity=identity,
        )  # fmt: skip


def sandbox(config: Config) -> SandboxPool:
    """The warm sandbox that the config describes."""
    from score.sandbox.zygote import ZygotePool, own_python

    box = config.sandbox
    limits = Limits(timeout_s=box.timeout_s, memory_mb=box.memory_mb, output_chars=box.output_chars)
    pool = ZygotePool(limits, python=box.python or own_python(), require=tuple(box.require))
    log.info("sandbox: %s; isolation: %s", pool.versions, ", ".join(pool.layers))
    return pool


def trained_model(root: Path, agent: str, seed: int) -> Path:
    """The model folder of a training run. Raises `ScoreError` if it is not there."""
    folder = root / "train" / lineage.run(agent, seed) / "model"
    if not folder.is_dir():
        raise ScoreError(f"{folder}: no trained model of {agent!r} with seed {seed}; build it first")
    return folder


@contextlib.contextmanager
def open_tools(config: Config, purpose: search.Purpose) -> Iterator[Tools]:
    """The functions that model code may call besides final_answer_print; "train" and "test" share no search cache.

    A job opens them first: a missing key or cache ends it before a model is loaded.
    """
    with contextlib.closing(search.open_search(config.search, purpose)) as backend:
        yield {"web_search": search.tool(backend, config.search.k)}


def work_rows(folder: Path, name: str, shard: Shard = WHOLE) -> ResumableRows:
    """The work file of one job; what was done when the stage was split into another number of shards counts too."""
    folder.mkdir(parents=True, exist_ok=True)
    others = [path for path in folder.glob(f"{name}.*-of-*.jsonl") if not path.stem.endswith(f"-of-{shard.count}")]
    others.sort(key=lambda path: path.stat().st_mtime)  # of two rows with one key the later one counts
    return ResumableRows(folder / f"{name}.{shard}.jsonl", earlier=others)
