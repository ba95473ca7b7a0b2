"""The knowledge base of a micro-world as a search backend: one fact for a query that names a relation and an entity."""

from __future__ import annotations

import re

from score.micro.world import RELATIONS, World, make_world
from score.search.base import Result

_QUERY = re.compile(rf"\s*(?:what is\s+)?(?:the\s+)?({'|'.join(RELATIONS)}) of (\w+)\s*\??\s*", re.IGNORECASE)


class KnowledgeBase:
    """Implements `score.search.base.SearchBackend`; it never fails and never ranks."""

    name = "micro"

    def __init__(self, world: World | None = None) -> None:
        self.world = world or make_world()

    def search(self, query: str, k: int) -> list[Result]:
        """The one matching fact for "rival of Kego"; an empty list for every other query, two-hop ones included."""
        match = _QUERY.fullmatch(query)
        if match is None or k < 1:
            return []
        relation, name = match[1].lower(), match[2].capitalize()
        value = self.world.facts.get((relation, name))
        return [] if value is None else [Result(title=name, snippet=fact_sentence(relation, name, value))]


def fact_sentence(relation: str, name: str, value: str) -> str:
    return f"The {relation} of {name} is {value}."
