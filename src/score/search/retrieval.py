"""Passages of a retrieval server that speaks the protocol of Search-R1: POST /retrieve, a list of queries at a time.

A document's `contents` is its title in quotation marks on a line of its own, then its text.
"""

from __future__ import annotations

from typing import Any

from score.search.base import Result
from score.search.http import PATIENT, Endpoint, Tries, at, rows, text


class Retrieval:
    """Implements `SearchBackend`; thread-safe. `url` is the server's address, with or without `/retrieve`."""

    name = "retrieval"

    def __init__(self, url: str, *, snippet_chars: int = 1000, tries: Tries = PATIENT) -> None:
        self._snippet_chars = snippet_chars
        self._endpoint = Endpoint(self.name, at(url, "/retrieve"), tries=tries)

    @property
    def sent(self) -> int:
        return self._endpoint.sent

    def search(self, query: str, k: int) -> list[Result]:
        body = {"queries": [query], "topk": k, "return_scores": True}
        return self._endpoint.ask("POST", self._results, json=body)[:k]

    def close(self) -> None:
        self._endpoint.close()

    def _results(self, answer: Any) -> list[Result]:
        (passages,) = rows(answer["result"])  # one query was asked
        return [self._result(text(passage["document"]["contents"])) for passage in rows(passages)]

    def _result(self, contents: str) -> Result:
        title, _, passage = contents.partition("\n")
        return Result(title.strip().strip('"'), passage[: self._snippet_chars])
