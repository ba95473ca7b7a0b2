"""JSON replies of a model: asked for by schema, validated, asked for once more, then a failure with a name.

One reader for the teacher and the judges. A reply is the JSON object asked for, bare or in one code fence, or it is
nothing: no object is dug out of prose, no type is converted, of two equal keys none is chosen (hazards 11, 19). A
server that can hold a model to the schema does (`Request.schema`); the reader does not rely on it.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from score.agent.protocol import Message
from score.engine.base import Completion

Prompt = tuple[Message, ...]
Complete = Callable[[Prompt, dict[str, Any]], Awaitable[Completion]]
"""Makes one completion of a prompt under a JSON schema. May raise `InfrastructureError`."""

Failing = Literal["unreadable", "truncated", "context"]
"""unreadable: not the JSON asked for. truncated: cut by the token limit. context: the prompt does not fit the model."""

T = TypeVar("T", bound=BaseModel)

_FENCE = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL | re.IGNORECASE)
_SHOWN = 200
"""Characters of a validation error that the model reads when it is asked again."""


@dataclass(frozen=True)
class Reply(Generic[T]):
    """What came back: the `value` asked for, or None and what is wrong with `text`, the last reply as it came.

    `first` is the reply before that, which could not be read; None where the model was asked once.
    """

    text: str
    value: T | None = None
    failure: Failing | None = None
    first: str | None = None

    @property
    def repaired(self) -> bool:
        return self.first is not None and self.failure is None


async def ask(complete: Complete, prompt: Prompt, schema: type[T]) -> Reply[T]:
    """Asks for JSON; a reply that is none is shown to the model once, with what is wrong about it, to be repaired.

    Raises what `complete` raises: an endpoint that is down is not a bad reply.
    """
    first = await complete(prompt, json_schema(schema))
    if first.finish == "context":
        return Reply("", failure="context")
    reply, problem = _read(first, schema)
    if reply.failure is None:
        return reply
    repair = Message("user", f"That was not the JSON asked for ({problem[:_SHOWN]}). Reply with the JSON only.")
    second = await complete((*prompt, Message("assistant", first.text), repair), json_schema(schema))
    last = reply if second.finish == "context" else _read(second, schema)[0]
    return replace(last, first=first.text)


def _read(completion: Completion, schema: type[T]) -> tuple[Reply[T], str]:
    if completion.finish == "length":  # a cut reply may still parse: as a shorter number, or the first of two objects
        return Reply(completion.text, failure="truncated"), "it was cut at the token limit"
    try:
        return Reply(completion.text, read_json(completion.text, schema)), ""
    except ValueError as error:
        return Reply(completion.text, failure="unreadable"), str(error)


def read_json(text: str, schema: type[T]) -> T:
    """The object that a reply is. Raises `ValueError` with the reason if it is not."""
    fenced = _FENCE.fullmatch(text.strip())
    try:
        value = json.loads(fenced[1] if fenced else text, object_pairs_hook=_object, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, found {type(value).__name__}")
    try:
        return schema.model_validate(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("the same key twice")
    return fields


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


@functools.cache
def json_schema(schema: type[BaseModel]) -> dict[str, Any]:
    """The schema as servers with structured output want it: every field there, no other one."""
    full = schema.model_json_schema()
    return full | {"required": list(full["properties"]), "additionalProperties": False}
