"""What search is to the rest of the harness: a query in, a list of results out, and failures that say what failed."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Protocol

from score.errors import InfrastructureError, ScoreError


@dataclass(frozen=True)
class Result:
    title: str
    snippet: str
    url: str = ""


class SearchError(InfrastructureError):
    """The backend did not answer: this is not "no results" (hazard 31)."""


class RateLimited(SearchError):
    """The backend refused for now, and kept refusing until the tries were used up."""


class TimedOut(SearchError):
    """The backend did not answer in time."""


class Refused(SearchError):
    """The backend would not answer this request (HTTP 4xx); another try would not change that."""


class NotRecorded(SearchError):
    """Answers come from the cache alone, and it has none for this query."""


class AccessDenied(ScoreError):
    """The backend answers nobody with this key or these settings. Raised through, so that the job ends at once."""


class SearchBackend(Protocol):
    name: str
    sent: int
    """Requests really sent so far, further tries included; 0 for what needs no server."""

    def search(self, query: str, k: int) -> list[Result]:
        """At most k results, best first; an empty list means that the backend found none. Raises `SearchError`."""

    def close(self) -> None: ...


class Local:
    """What a backend without a server has to say of one."""

    sent = 0

    def close(self) -> None: ...


def normalised(query: str) -> str:
    """A query with single spaces and composed characters: queries that look the same are the same to a cache."""
    return unicodedata.normalize("NFC", " ".join(query.split()))


def render(results: list[Result]) -> str:
    """The text form of results that a model sees: the published `Page / Title / Snippet` blocks."""
    if not results:
        return "No results."
    return "\n".join(f"Page: {i}\nTitle: {r.title}\nSnippet: {r.snippet}" for i, r in enumerate(results))
