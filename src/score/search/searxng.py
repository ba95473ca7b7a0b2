"""Results of a SearXNG instance through its JSON API, which the instance's settings.yml must allow (search.formats).

One page of results is asked for; how many are on it is the instance's business. An instance asks several engines, and
one whose engines all failed answers with an empty list and their reasons: that is a failure, not "no results".
"""

from __future__ import annotations

from typing import Any

from score.search.base import RateLimited, Result, SearchError
from score.search.http import PATIENT, Endpoint, Tries, at, rows, text

_DENIED = {
    401: "check the user and password in search.url",
    403: "add json to search.formats in the instance's settings.yml",
}
_LIMITED = ("too many requests", "captcha", "access denied")


class SearXNG:
    """Implements `SearchBackend`; thread-safe. `url` is the instance's address, `language` a code such as `en`."""

    name = "searxng"

    def __init__(self, url: str, *, language: str = "en", tries: Tries = PATIENT) -> None:
        self._language = language
        self._endpoint = Endpoint(self.name, at(url, "/search"), denied=_DENIED, tries=tries)

    @property
    def sent(self) -> int:
        return self._endpoint.sent

    def search(self, query: str, k: int) -> list[Result]:
        asked = {"q": query, "format": "json", "language": self._language}
        return self._endpoint.ask("GET", _results, params=asked)[:k]

    def close(self) -> None:
        self._endpoint.close()


def _results(answer: Any) -> list[Result]:
    found = rows(answer["results"])
    results = [Result(text(row["title"]), text(row.get("content")), text(row.get("url"))) for row in found]
    silent = answer.get("unresponsive_engines")
    if silent and not results:
        reasons = "; ".join(f"{engine}: {reason}" for engine, reason in silent)
        limited = all(any(word in reason.lower() for word in _LIMITED) for _, reason in silent)
        raise (RateLimited if limited else SearchError)(f"searxng: no engine answered ({reasons[:200]})")
    return results
