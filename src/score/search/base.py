"""What search is to the rest of the harness: a query in, a list of results out, and failures that say what failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from score.errors import InfrastructureError


@dataclass(frozen=True)
class Result:
    title: str
    snippet: str
    url: str = ""


class SearchError(InfrastructureError):
    """The backend did not answer: this is not "no results" (hazard 31)."""


class RateLimited(SearchError):
    """The backend refused for now."""


class SearchBackend(Protocol):
    name: str

    def search(self, query: str, k: int) -> list[Result]:
        """At most k results, best first; an empty list means that the backend found none. Raises `SearchError`."""


def render(results: list[Result]) -> str:
    """The text form of results that a model sees: the published `Page / Title / Snippet` blocks."""
    if not results:
        return "No results."
    return "\n".join(f"Page: {i}\nTitle: {r.title}\nSnippet: {r.snippet}" for i, r in enumerate(results))
