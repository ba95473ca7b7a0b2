"""Google results through the Serper web API. Needs a key, by default from the environment variable SERPER_API_KEY."""

from __future__ import annotations

from typing import Any

from score.search.base import Result
from score.search.http import PATIENT, Endpoint, Tries, key_from, rows, text

KEY_VARIABLE = "SERPER_API_KEY"
_CHECK = f"check {KEY_VARIABLE}"


class Serper:
    """Implements `SearchBackend`; thread-safe. `country` and `language` are Serper's `gl` and `hl`.

    Raises:
        ScoreError: no key.
    """

    name = "serper"

    def __init__(
        self,
        key: str | None = None,
        *,
        url: str = "https://google.serper.dev/search",
        country: str = "us",
        language: str = "en",
        tries: Tries = PATIENT,
    ) -> None:
        key = key_from(KEY_VARIABLE, self.name, key)
        self._place = {"gl": country, "hl": language}
        denied = {401: _CHECK, 403: _CHECK}
        self._endpoint = Endpoint(self.name, url, headers={"X-API-KEY": key}, secret=key, denied=denied, tries=tries)

    @property
    def sent(self) -> int:
        return self._endpoint.sent

    def search(self, query: str, k: int) -> list[Result]:
        return self._endpoint.ask("POST", _results, json={"q": query, "num": k, **self._place})[:k]

    def close(self) -> None:
        self._endpoint.close()


def _results(answer: Any) -> list[Result]:
    return [
        Result(text(row["title"]), text(row.get("snippet")), text(row.get("link"))) for row in rows(answer["organic"])
    ]
