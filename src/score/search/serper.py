"""Google results through the Serper web API. Needs a key, by default from the environment variable SERPER_API_KEY.

A refused or failed request is retried a few times and then raises; it is never an empty result (hazard 31).
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from score.errors import ScoreError
from score.search.base import RateLimited, Result, SearchError

KEY_VARIABLE = "SERPER_API_KEY"
_LONGEST_WAIT_S = 60.0


class Serper:
    """Implements `SearchBackend`; thread-safe.

    Args:
        country, language: Serper's `gl` and `hl`; the paper's inference settings.
        retries: further tries after 429, 5xx or a lost connection.
        backoff_s: wait before the first retry, doubled for each further one; a Retry-After header goes before it.

    Raises:
        ScoreError: no key, or Serper does not accept it.
        RateLimited, SearchError: from `search`, when the tries are used up.
    """

    name = "serper"

    def __init__(
        self,
        key: str | None = None,
        *,
        base_url: str = "https://google.serper.dev/search",
        country: str = "us",
        language: str = "en",
        timeout_s: float = 20.0,
        retries: int = 4,
        backoff_s: float = 1.0,
    ) -> None:
        key = (key or os.environ.get(KEY_VARIABLE, "")).strip()
        if not key:
            raise ScoreError(f"search: backend serper needs a key; set the environment variable {KEY_VARIABLE}")
        if not (key.isascii() and key.isprintable()):  # the HTTP client's own message would show the key
            raise ScoreError(f"search: the serper key in {KEY_VARIABLE} holds characters that no key has")
        self._url = base_url
        self._place = {"gl": country, "hl": language}
        self._retries, self._backoff_s = retries, backoff_s
        self._client = httpx.Client(timeout=timeout_s, headers={"X-API-KEY": key})

    def search(self, query: str, k: int) -> list[Result]:
        body = {"q": query, "num": k, **self._place}
        attempt = 0
        while True:
            try:
                return _results(self._client.post(self._url, json=body))[:k]
            except _Temporary as refusal:
                wait = self._backoff_s * 2**attempt if refusal.wait_s is None else refusal.wait_s
                problem = refusal.problem
            except httpx.RequestError as lost:
                wait = self._backoff_s * 2**attempt
                problem = SearchError(f"serper: {type(lost).__name__}: {lost}")
            if attempt == self._retries or wait > _LONGEST_WAIT_S:
                raise problem
            time.sleep(wait)
            attempt += 1

    def close(self) -> None:
        self._client.close()


class _Temporary(Exception):
    """A refusal that another try may overcome, after `wait_s` seconds if the server says so."""

    def __init__(self, problem: SearchError, wait_s: float | None) -> None:
        self.problem, self.wait_s = problem, wait_s


def _results(response: httpx.Response) -> list[Result]:
    code = response.status_code
    if code == 429:
        raise _Temporary(RateLimited("serper: too many requests (HTTP 429)"), _retry_after(response))
    if code >= 500:
        raise _Temporary(SearchError(f"serper: HTTP {code}"), _retry_after(response))
    if code in (401, 403):
        raise ScoreError(f"search: serper does not accept the key (HTTP {code}); check {KEY_VARIABLE}")
    if code != 200:
        raise SearchError(f"serper: HTTP {code}: {response.text[:200]!r}")
    try:
        rows = response.json()["organic"]
        return [Result(row["title"], row.get("snippet", ""), row.get("link", "")) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise SearchError(f"serper: an answer of an unexpected form: {response.text[:200]!r}") from problem


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds of a Retry-After header in either of its forms, a number or a date; None without a valid one."""
    value = response.headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
