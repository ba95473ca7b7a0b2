"""A mistake in a config, a site file or a name, as one line: where it is, what is wrong, and the nearest valid word."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError


def nearest(word: str, valid: Iterable[str]) -> str:
    """' (did you mean X?)' or a list of what is valid, for the end of an error line."""
    valid = list(valid)
    close = difflib.get_close_matches(word, valid, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(sorted(valid))}"


def one_line(error: ValidationError, root: type[BaseModel], file: str) -> str:
    """The first mistake of a config or site file: where it is, what is wrong, and the nearest valid key."""
    mistakes = error.errors()
    # A mistyped key is also a missing one, if it is required: the typing mistake says more.
    first = next((mistake for mistake in mistakes if mistake["type"] == "extra_forbidden"), mistakes[0])
    where = ".".join(str(part) for part in first["loc"]) or "top level"
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        return f"{file}: {where}: unknown key; {nearest(key, _keys_at(root, first['loc'][:-1]))}"
    value = first.get("input")
    shown = "" if first["type"] == "missing" else f", not {value!r}"
    return f"{file}: {where}: {first['msg'].lower()}{shown if len(shown) < 80 else ''}"


def _keys_at(root: type[BaseModel], path: Iterable[Any]) -> list[str]:
    """The valid keys of the section at a location such as ('agents', 3) or ('training', 'sft', 'score_sft')."""
    section = root
    for part in path:
        if part in section.model_fields:  # else a list index or a name in a mapping of sections
            section = _section_in(section.model_fields[part].annotation) or section
    return list(section.model_fields)


def _section_in(annotation: Any) -> Any:
    """The pydantic model inside list[Agent], dict[str, Model], Lora | None and so on."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_section_in(inner) for inner in typing.get_args(annotation))
    return next((section for section in found if section is not None), None)
