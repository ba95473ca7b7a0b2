"""What a sandbox is to the rest of the harness: a persistent interpreter per episode; a step in, what it printed out.

Two levels. A `SandboxPool` is warmed once per job; `open()` gives a `Session`, one per episode. Both are context
managers.
Isolation, limits and state restoration are properties of an implementation, not of this interface.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from score.errors import InfrastructureError


@dataclass(frozen=True)
class Limits:
    """What one step may use. Seconds of wall clock, MiB of address space, characters of observation, MiB per file."""

    timeout_s: float = 10.0
    memory_mb: int = 2048
    output_chars: int = 2000
    file_mb: int = 16


@dataclass(frozen=True)
class Observation:
    """What a step printed, as the model will see it.

    `text` is stdout, then the last traceback line if an exception ended the step; cut in the middle at
    `Limits.output_chars`. `error` is None, "exception", "timeout" or "died". `answer` is the text form of the value
    handed to final_answer_print by executed code (the step ends there), or None. `calls` counts tool calls by name.
    """

    text: str
    error: str | None = None
    answer: str | None = None
    calls: tuple[tuple[str, int], ...] = ()
    seconds: float = 0.0


Tools = dict[str, Callable[[str], str]]
"""Functions of one string that model code may call, run on the host's side: {"web_search": search}.

A tool raises `InfrastructureError` when its backend failed; the session then raises it out of `run`.
"""


class Session(Protocol):
    """One episode's interpreter: variables, imports and functions persist from step to step."""

    reversible: bool
    """Whether the state before each further step is kept, its own and that of branches; can be switched off."""

    @property
    def steps(self) -> int:
        """Completed steps; one that ended its interpreter (error "timeout" or "died") is none."""

    def run(self, code: str) -> Observation:
        """Executes one step. Raises `InfrastructureError` if the sandbox itself or a tool's backend failed."""

    def restore(self, step: int) -> None:
        """Goes back to the state before a completed step, or before the next one. Raises as `run` does."""

    def branch(self, step: int, count: int) -> Sequence[Session]:
        """Independent sessions in the state before a step; this one stays where it is. Raises as `run` does."""

    def close(self) -> None: ...

    def __enter__(self) -> Session: ...

    def __exit__(self, *exc: object) -> None: ...


class SandboxPool(Protocol):
    """A warm source of sessions."""

    layers: tuple[str, ...]
    """Isolation layers that are really active, for the log and the provenance."""
    versions: str
    """Of Python and the packages that steps are run by; what they print may depend on it."""

    def open(self, tools: Tools | None = None, *, reversible: bool = False) -> Session:
        """A new session; a `reversible` one pays a little for each step, so that going back is exact and cheap."""

    def run_many(self, work: Sequence[tuple[Session, str]]) -> list[Observation | InfrastructureError]:
        """One step of each of several different sessions, side by side."""

    def close(self) -> None: ...

    def __enter__(self) -> SandboxPool: ...

    def __exit__(self, *exc: object) -> None: ...
