"""The prompts, as data files with a version; the version enters the key of every record that a prompt produced."""

from __future__ import annotations

import string
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from score.agent.protocol import Message
from score.records import content_key


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
        """System and user message. Values are inserted as they are; a missing one is a KeyError."""
        user = string.Template(self.user).substitute(values).strip()
        return Message("system", self.system), Message("user", user)


@cache
def load(name: str) -> Prompt:
    """The prompt in `name`.yaml beside this module."""
    raw = yaml.safe_load((Path(__file__).parent / f"{name}.yaml").read_text(encoding="utf-8"))
    return Prompt(name, raw["version"], raw["system"].strip(), raw.get("user", ""))
