"""What a model is to the rest of the harness: a conversation in, a completion out.

Two shapes, because two kinds of backends exist. A `BatchEngine` decodes a list of conversations in step (in-process
transformers, the trainer's own model); an `AsyncEngine` has many single requests in flight (any HTTP endpoint).
`score.agent.drivers.run_episodes` takes either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from score.agent.protocol import Message
from score.config.schema import Sampling

Turn = Literal["plan", "step"]

Finish = Literal["stop", "length", "context"]
"""Why a completion ended: the model's end of turn, the token limit, or a conversation too long to begin with."""


@dataclass(frozen=True)
class Request:
    """One completion to make. `schema` is a JSON schema for the reply; a backend that cannot enforce it ignores it.

    `turn`: it is to be a turn of the agent's protocol, the plan or a step.
    """

    messages: tuple[Message, ...]
    sampling: Sampling
    seed: int
    schema: dict[str, Any] | None = None
    turn: Turn | None = None


@dataclass(frozen=True)
class Completion:
    """`token_ids` are the sampled ids without the end-of-turn token, `logprobs` their log-probabilities; None where the
    backend does not tell. `cached_tokens` of the prompt did not have to be computed again.
    """

    text: str
    finish: Finish = "stop"
    token_ids: tuple[int, ...] | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    logprobs: tuple[float, ...] | None = None
    cached_tokens: int = 0


class BatchEngine(Protocol):
    batch: int
    """How many conversations it decodes together."""

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request, in order. The same request gives the same completion in any batch."""


class AsyncEngine(Protocol):
    concurrency: int
    """How many requests may be in flight."""

    async def __aenter__(self) -> AsyncEngine: ...

    async def __aexit__(self, *exc: object) -> None: ...

    async def complete(self, request: Request) -> Completion:
        """Raises `InfrastructureError` when the backend failed for good."""


Engine = BatchEngine | AsyncEngine
