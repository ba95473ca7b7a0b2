"""The knowledge base of a micro-world as a search backend: one fact for a query that names an entity and a relation."""

from __future__ import annotations

import re

from score.micro.world import RELATIONS, World, make_world
from score.search.base import Local, Result

_RELATION = "|".join(RELATIONS)
_QUERY = re.compile(rf"(?:(\w+)'s ({_RELATION})|(?:the )?({_RELATION}) of (\w+))\s*\??", re.IGNORECASE)


class KnowledgeBase(Local):
    """Implements `score.search.base.SearchBackend`; it never fails and never ranks."""

    name = "micro"

    def __init__(self, world: World | None = None) -> None:
        self.world = world or make_world()

    def search(self, query: str, k: int) -> list[Result]:
        """The fact asked for by "Kego's rival" or "rival of Kego"; nothing for any other query, two hops included."""
        match = _QUERY.fullmatch(query.strip())
        if match is None or k < 1:
            return []
        name, relation = (match[1] or match[4]).capitalize(), (match[2] or match[3]).lower()
        value = self.world.facts.get((relation, name))
        return [] if value is None else [Result(title=name, snippet=f"{name}'s {relation} is {value}.")]
