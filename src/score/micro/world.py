"""The micro-world: 96 one-token names and 312 facts about them, drawn from a seed.

Persons, companies and towns are linked by nine relations; three of them end in a number. Nothing here knows about
questions, agents or search: `score.micro.backend` serves the facts, `score.micro.tasks` asks about them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

DEFAULT_SEED = 0

_FIRST = ("Be", "Da", "Fo", "Gi", "Hu", "Ke", "La", "Mo", "Ne", "Pi", "Ro", "Tu")
_SECOND = ("ba", "de", "go", "ki", "mu", "na", "po", "ra")
NAMES = tuple(first + second for first in _FIRST for second in _SECOND)
"""Every name of every world; a seed decides who is a person, a company or a town."""

NUMBER = "number"
RELATIONS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "mentor": ("person", "person"),
        "rival": ("person", "person"),
        "birthplace": ("person", "town"),
        "age": ("person", NUMBER),
        "founder": ("company", "person"),
        "home": ("company", "town"),
        "budget": ("company", NUMBER),
        "mayor": ("town", "person"),
        "population": ("town", NUMBER),
    }
)
"""Relation -> (kind of its subject, kind of its value)."""

_SIZES = {"person": 48, "company": 24, "town": 24}


@dataclass(frozen=True, eq=False)
class World:
    """`kinds`: name -> "person", "company" or "town". `facts`: (relation, name) -> a name or a number 10..99."""

    seed: int
    kinds: Mapping[str, str]
    facts: Mapping[tuple[str, str], str]

    def names(self, kind: str) -> tuple[str, ...]:
        return tuple(name for name, its_kind in self.kinds.items() if its_kind == kind)

    def follow(self, name: str, relations: tuple[str, ...]) -> tuple[str, ...]:
        """The values met on the way from `name`; KeyError if a relation does not apply."""
        values = []
        for relation in relations:
            name = self.facts[relation, name]
            values.append(name)
        return tuple(values)


@cache
def make_world(seed: int = DEFAULT_SEED) -> World:
    """The world of a seed; nobody is their own mentor or rival."""
    rng = random.Random(seed)
    shuffled = iter(rng.sample(NAMES, len(NAMES)))
    members = {kind: [next(shuffled) for _ in range(size)] for kind, size in _SIZES.items()}
    facts = {}
    for relation, (subject_kind, value_kind) in RELATIONS.items():
        for name in members[subject_kind]:
            if value_kind == NUMBER:
                facts[relation, name] = str(rng.randint(10, 99))
            else:
                facts[relation, name] = rng.choice([other for other in members[value_kind] if other != name])
    kinds = {name: kind for kind, names in members.items() for name in names}
    return World(seed, MappingProxyType(kinds), MappingProxyType(facts))
