"""The records that flow through every stage: `Task`, `Step`, `Trajectory`.

All are frozen and serialise to plain JSON objects (`to_json` / `from_json`); one line of a `.jsonl` file holds one
record. A trajectory's message form (`score.agent.protocol.messages`) is exactly the published chat format, so it can be
read, trained on and compared.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

TRAJECTORY_VERSION = 1


class StopReason(enum.StrEnum):
    """Why an episode ended."""

    ANSWERED = "answered"  # executed code called final_answer_print
    MAX_STEPS = "max_steps"  # the step budget is used up without an answer
    PARSE_ERROR = "parse_error"  # a completion did not hold the expected blocks, too often in a row or at all
    CONTEXT_OVERFLOW = "context_overflow"  # the conversation no longer fits the model's context
    INFRASTRUCTURE_ERROR = "infrastructure_error"  # server, sandbox or search failed: no outcome, never a wrong answer


@dataclass(frozen=True)
class Task:
    """One question. `answers` lists the accepted gold answers (aliases); the first is the canonical one."""

    id: str
    question: str
    answers: tuple[str, ...]
    dataset: str
    meta: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"answers": list(self.answers)}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Task:
        """Raises `TypeError`, `KeyError` or `ValueError` on what is no task."""
        answers = row["answers"]
        texts = [row["id"], row["question"], *answers] if isinstance(answers, list | tuple) else [None]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("a task has an id, a question and a list of answers, all of them text")
        return cls(**(row | {"answers": tuple(answers)}))


@dataclass(frozen=True)
class Step:
    """One (thought, code, observation) of a trajectory: sigma_i in the paper.

    `observation` is None while the step has not been executed. `error` names what went wrong in it, if anything
    ("parse_error", "truncated", "timeout", "exception"); the model saw the same in its observation.
    `token_ids` are the completion's ids as sampled, where the engine returns them; training uses these, never a
    re-tokenisation of the text. `logprobs` are their log-probabilities, where the config asks for them; a record
    without has no such key. `text` is the completion verbatim.
    """

    thought: str
    code: str
    observation: str | None = None
    error: str | None = None
    text: str | None = None
    token_ids: tuple[int, ...] | None = None
    seconds: float = 0.0
    logprobs: tuple[float, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        row = dataclasses.asdict(self)
        if self.token_ids is not None:
            row["token_ids"] = list(self.token_ids)
        logprobs = row.pop("logprobs")
        return row if logprobs is None else row | {"logprobs": list(logprobs)}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Step:
        lists = {name: row.get(name) for name in ("token_ids", "logprobs")}
        return cls(**(row | {name: None if found is None else tuple(found) for name, found in lists.items()}))


@dataclass(frozen=True)
class Trajectory:
    """One episode. `plan` is the first thought (a turn of its own, not counted as a step); None if it never parsed.

    `answer` is what executed code handed to final_answer_print, as text. `tokens` counts prompt and completion tokens
    per engine call summed over the episode. `meta` holds provenance: agent, model digest, seed, sampling.
    """

    task: Task
    plan: str | None
    steps: tuple[Step, ...]
    stop: StopReason
    answer: str | None = None
    tokens: dict[str, int] = field(default_factory=dict)
    plan_token_ids: tuple[int, ...] | None = None
    plan_text: str | None = None
    plan_logprobs: tuple[float, ...] | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    version: int = TRAJECTORY_VERSION

    @property
    def sample(self) -> int:
        """Which of several attempts at its question this is."""
        return self.meta.get("sample", 0)

    def to_json(self) -> dict[str, Any]:
        logprobs = {} if self.plan_logprobs is None else {"plan_logprobs": list(self.plan_logprobs)}
        return {
            "version": self.version,
            "task": self.task.to_json(),
            "plan": self.plan,
            "plan_text": self.plan_text,
            "plan_token_ids": None if self.plan_token_ids is None else list(self.plan_token_ids),
            **logprobs,
            "steps": [step.to_json() for step in self.steps],
            "stop": self.stop.value,
            "answer": self.answer,
            "tokens": self.tokens,
            "meta": self.meta,
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Trajectory:
        """Raises `TypeError`, `KeyError` or `ValueError` on what is no trajectory."""
        if row.get("version") != TRAJECTORY_VERSION:
            raise ValueError(f"trajectory version {row.get('version')!r}, this code reads {TRAJECTORY_VERSION}")
        answer, meta = row["answer"], row["meta"]
        if not (answer is None or isinstance(answer, str)):
            raise ValueError(f"the answer is {type(answer).__name__}, not text")
        if not (isinstance(meta, dict) and isinstance(meta.get("sample", 0), int)):
            raise ValueError("meta is an object, and meta.sample a number")
        ids, logprobs = row.get("plan_token_ids"), row.get("plan_logprobs")
        return cls(
            task=Task.from_json(row["task"]),
            plan=row["plan"],
            plan_text=row.get("plan_text"),
            plan_token_ids=None if ids is None else tuple(ids),
            plan_logprobs=None if logprobs is None else tuple(logprobs),
            steps=tuple(Step.from_json(step) for step in row["steps"]),
            stop=StopReason(row["stop"]),
            answer=answer,
            tokens=row["tokens"],
            meta=meta,
            version=row["version"],
        )


def content_key(*parts: Any) -> str:
    """A short hash of JSON-serialisable parts; the same content gives the same key on every machine."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def derive_seed(*parts: Any) -> int:
    """A 31-bit seed from content, so that no result depends on the order in which episodes finish (hazard 14)."""
    return int(content_key("seed", *parts)[:8], 16) & 0x7FFFFFFF
