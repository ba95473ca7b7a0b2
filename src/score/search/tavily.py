"""Web results through the Tavily API. Needs a key, by default from the environment variable TAVILY_API_KEY.

Searches are of the `basic` depth. Tavily has no setting for a language and gives at most 20 results.
"""

from __future__ import annotations

from typing import Any

from score.search.base import Result
from score.search.http import PATIENT, Endpoint, Tries, key_from, rows, text

KEY_VARIABLE = "TAVILY_API_KEY"
_DENIED = {
    401: f"check {KEY_VARIABLE}",
    403: f"check {KEY_VARIABLE}",
    432: "the limit of the key or its plan is reached",
    433: "the pay-as-you-go limit is reached",
}


class Tavily:
    """Implements `SearchBackend`; thread-safe.

    Raises:
        ScoreError: no key.
    """

    name = "tavily"

    def __init__(
        self, key: str | None = None, *, url: str = "https://api.tavily.com/search", tries: Tries = PATIENT
    ) -> None:
        key = key_from(KEY_VARIABLE, self.name, key)
        headers = {"Authorization": f"Bearer {key}"}
        self._endpoint = Endpoint(self.name, url, headers=headers, secret=key, denied=_DENIED, tries=tries)

    @property
    def sent(self) -> int:
        return self._endpoint.sent

    def search(self, query: str, k: int) -> list[Result]:
        body = {"query": query, "max_results": k, "search_depth": "basic"}
        return self._endpoint.ask("POST", _results, json=body)[:k]

    def close(self) -> None:
        self._endpoint.close()


def _results(answer: Any) -> list[Result]:
    return [
        Result(text(row["title"]), text(row.get("content")), text(row.get("url"))) for row in rows(answer["results"])
    ]
