"""The prompts, as data files with a version; the version enters the key of every record that a prompt produced.

What is put into a prompt was written by models, web pages and data sets. It stands between the prompt's tags and can
neither close nor open one: `material` breaks up what reads like a tag, whoever wrote it.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from score.agent.protocol import Message
from score.records import content_key

_TAG = re.compile(
    r"<(?=(?:\s*/\s*)?(?:question|reference|candidate|trajectory|turn|observation|wrong|advice)\b)", re.IGNORECASE
)


class Markup(str):
    """Text whose tags are the harness's own; everything in between has been through `material`."""

    __slots__ = ()


def material(text: str) -> str:
    """`text` without anything that reads like a tag of the prompts: its `<` becomes `&lt;`. Other text stays as it is.

    Lone surrogates, which JSON lets pass and no request can carry, become their escapes.
    """
    if isinstance(text, Markup):
        return text
    return _TAG.sub("&lt;", text).encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class Prompt:
    name: str
    version: int
    system: str
    user: str = ""

    @property
    def key(self) -> str:
        return content_key(self.name, self.version, self.system, self.user)

    def render(self, **values: str) -> tuple[Message, ...]:
        """System and user message, with values as `material`; a missing one is a KeyError."""
        safe = {name: material(value) for name, value in values.items()}
        user = string.Template(self.user).substitute(safe).strip()
        return Message("system", self.system), Message("user", user)


@cache
def load(name: str) -> Prompt:
    """The prompt in `name`.yaml beside this module."""
    raw = yaml.safe_load((Path(__file__).parent / f"{name}.yaml").read_text(encoding="utf-8"))
    return Prompt(name, raw["version"], raw["system"].strip(), raw.get("user", ""))
