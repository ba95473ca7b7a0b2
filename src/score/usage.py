"""What a stage asks of its models: requests and tokens of each role, whatever became of the job that asked.

Every reply is noted in a journal in the stage's work folder before anything is made of it. So a reply that a killed job
kept for its successor is counted once, when it came; one whose episode the kill cut short, so that it is asked for
again, was asked for twice and is counted twice. Only a reply that was still on its way when the job died is missed.
When a stage is split into another number of jobs, the first of them counts what jobs of other splits have noted.
The journal also keeps who answered, for a job that finds all done and starts no server.

    with Usage(work, "attempts", shard) as usage:
        engine = usage.counted(engine, "student")
        ...
        provenance(settings, **usage.facts())
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from score.engine.base import AsyncEngine, BatchEngine, Completion, Engine, Request
from score.errors import InfrastructureError
from score.shards import WHOLE, Shard

Role = Literal["teacher", "student", "reward_judge", "evaluation_judge"]

COUNTS = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "retried", "failed")
"""`requests` were answered; `retried` counts further sendings of one, `failed` those that nobody answered in the end.
`cached_tokens` are those of the prompts that a server did not have to compute again."""

Counts = dict[str, int]


class Usage:
    """The journal of one job. An async and a batched engine alike are counted by a wrapper around them."""

    def __init__(self, folder: Path, name: str, shard: Shard = WHOLE) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"usage.{name}.{shard}.jsonl"
        self._totals: dict[str, Counts] = {}
        self._servers: dict[str, list[Any]] = {}
        others = [p for p in folder.glob(f"usage.{name}.*-of-*.jsonl") if not p.stem.endswith(f"-of-{shard.count}")]
        for other in others if shard.number == 1 else ():
            self._read(other)
        whole = self._read(path) if path.exists() else 0
        self._file = open(path, "ab")  # noqa: SIM115 - held until close()
        self._file.truncate(whole)  # a torn last line

    def counted(self, engine: Engine, role: Role) -> Engine:
        """The same engine, what is asked of it being counted."""
        self._totals.setdefault(role, dict.fromkeys(COUNTS, 0))
        served = getattr(engine, "served", None)
        if served and served not in self._servers.get(role, ()):
            self._append({"role": role, "served": served})
            self._servers.setdefault(role, []).append(served)
        return _CountedAsync(engine, role, self) if hasattr(engine, "concurrency") else _Counted(engine, role, self)

    def note(self, role: str, done: Sequence[Completion], *, retried: int = 0, failed: int = 0) -> None:
        """Records completions that have come, or that have not."""
        answered = [completion for completion in done if completion.finish != "context"]  # these asked nothing of it
        counts = {
            "requests": len(answered),
            "prompt_tokens": sum(completion.prompt_tokens for completion in answered),
            "cached_tokens": sum(completion.cached_tokens for completion in answered),
            "completion_tokens": sum(completion.completion_tokens for completion in answered),
            "retried": retried,
            "failed": failed,
        }
        if any(counts.values()):
            self._append([role, *counts.values()])
            self._add(role, counts)

    def facts(self) -> dict[str, Any]:
        """For the provenance: counts by role, and who answered: a list where it was not always the same."""
        servers = {role: served if len(served) > 1 else served[0] for role, served in self._servers.items()}
        return {"usage": {role: dict(counts) for role, counts in self._totals.items()}, "servers": servers}

    def _append(self, line: Any) -> None:
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()

    def _add(self, role: str, counts: Mapping[str, int]) -> None:
        self._totals[role] = total([self._totals.get(role, {}), counts])

    def _read(self, path: Path) -> int:
        """Adds a journal's whole lines; returns their bytes."""
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        for line in content[:whole].splitlines():
            noted = json.loads(line)
            if isinstance(noted, dict):
                known = self._servers.setdefault(noted["role"], [])
                known += [] if noted["served"] in known else [noted["served"]]
            else:
                role, *counts = noted
                self._add(role, dict(zip(COUNTS, counts, strict=True)))
        return whole

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Usage:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Counted:
    def __init__(self, engine: BatchEngine, role: str, usage: Usage) -> None:
        self._engine, self._role, self._usage, self.batch = engine, role, usage, engine.batch

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        done = self._engine.complete(requests)
        self._usage.note(self._role, done)
        return done


class _CountedAsync:
    def __init__(self, engine: AsyncEngine, role: str, usage: Usage) -> None:
        self._engine, self._role, self._usage, self.concurrency = engine, role, usage, engine.concurrency
        self._retried = 0

    async def __aenter__(self) -> _CountedAsync:
        await self._engine.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._engine.__aexit__(*exc)

    async def complete(self, request: Request) -> Completion:
        try:
            done = await self._engine.complete(request)
        except InfrastructureError:
            self._usage.note(self._role, [], retried=self._new_retries(), failed=1)
            raise
        self._usage.note(self._role, [done], retried=self._new_retries())
        return done

    def _new_retries(self) -> int:
        retried = getattr(self._engine, "retried", 0)
        new, self._retried = retried - self._retried, retried
        return new


def total(counts: Iterable[Mapping[str, int]]) -> Counts:
    """The sum, over every kind of count."""
    counts = list(counts)
    return {name: sum(one.get(name, 0) for one in counts) for name in COUNTS}


def gathered(records: Iterable[Mapping[str, Any]]) -> dict[str, Counts]:
    """The usage of all shards' provenance records together, by role."""
    usages = [record.get("usage", {}) for record in records]
    roles = dict.fromkeys(role for usage in usages for role in usage)
    return {role: total(usage[role] for usage in usages if role in usage) for role in roles}
