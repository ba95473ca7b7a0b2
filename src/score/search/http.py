"""What all search services on the web have in common: keys, tries, waiting, and failures under their own names.

A refused or failed request is retried a few times where that can help, and then raises; it is never an empty result
(hazard 31). No message shows a key.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from score.errors import ScoreError
from score.search.base import AccessDenied, RateLimited, Refused, Result, SearchError, TimedOut

log = logging.getLogger("search")

_LONGEST_WAIT_S = 60.0
_LONGEST_BODY = 16 * 2**20


def key_from(variable: str, backend: str, given: str | None = None) -> str:
    """The key that was given, or the environment's. Raises `ScoreError` without one, or if it cannot be one."""
    key = (given or os.environ.get(variable, "")).strip()
    if not key:
        raise ScoreError(f"search: backend {backend} needs a key; set the environment variable {variable}")
    if not (key.isascii() and key.isprintable()):  # the HTTP client's own message would show the key
        raise ScoreError(f"search: the {backend} key in {variable} holds characters that no key has")
    return key


def at(url: str, path: str) -> str:
    """The address of `path` on a server that may have been given with or without it."""
    url = url.rstrip("/")
    return url if url.endswith(path) else url + path


def text(value: Any) -> str:
    """A text of an answer, fit to be stored and shown; "" for null. Raises TypeError for anything else."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"expected a text, not {type(value).__name__}")
    return (value or "").encode("utf-8", "replace").decode()


def rows(value: Any) -> list[Any]:
    """The list of an answer's results. Raises TypeError if it is none: no other value means "no results"."""
    if not isinstance(value, list):
        raise TypeError(f"expected a list, not {type(value).__name__}")
    return value


@dataclass(frozen=True)
class Tries:
    """How patiently a service is asked.

    Args:
        timeout_s: of one try, from its start to the last byte of the answer.
        retries: further tries after 429, 5xx, a time-out or a lost connection.
        backoff_s: wait before the first retry, doubled for each further one; longer if a Retry-After header says so.
    """

    timeout_s: float = 20.0
    retries: int = 4
    backoff_s: float = 1.0


PATIENT = Tries()


class Endpoint:
    """One address of a search service; thread-safe.

    Args:
        name: of the backend, in messages.
        headers: sent with every request.
        secret: never shown in a message.
        denied: HTTP status -> what the user should do, for answers that no other query would change.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        secret: str = "",
        denied: Mapping[int, str] | None = None,
        tries: Tries = PATIENT,
    ) -> None:
        self._name, self._url, self._tries, self._denied = name, url, tries, denied or {}
        try:
            password = httpx.URL(url).password
        except httpx.InvalidURL:  # whose own message could show a password
            raise ScoreError(f"search: the address of backend {name} is no URL") from None
        self._secrets = [word for word in (secret, password) if word]
        self._client = httpx.Client(timeout=tries.timeout_s, headers=headers)
        self._counting = threading.Lock()
        self.sent = 0

    def ask(self, method: str, parse: Callable[[Any], list[Result]], **request: Any) -> list[Result]:
        """Sends a request, `json` or `params` as for httpx, until `parse` makes results of the decoded JSON answer.

        `parse` raises ValueError, KeyError, TypeError or AttributeError for an unexpected form, and `SearchError`
        for a failure that the answer reports, which is then retried.

        Raises:
            AccessDenied, Refused: at once.
            RateLimited, TimedOut, SearchError: when the tries are used up, or for an answer of an unexpected form.
        """
        attempt = 0
        while True:
            try:
                return self._try(method, parse, request)
            except _Temporary as failure:
                wait = max(self._tries.backoff_s * 2**attempt, failure.wait_s)
                if attempt == self._tries.retries or wait > _LONGEST_WAIT_S:
                    raise failure.problem from None
                log.info("%s; trying again in %.1f s", failure.problem, wait)
            time.sleep(wait)
            attempt += 1

    def close(self) -> None:
        self._client.close()

    def _try(self, method: str, parse: Callable[[Any], list[Result]], request: dict[str, Any]) -> list[Result]:
        with self._counting:
            self.sent += 1
        try:
            response, body = self._exchange(method, request)
        except httpx.TimeoutException as late:
            raise _Temporary(TimedOut(self._shown(f"{type(late).__name__}: no answer in time"))) from None
        except httpx.RequestError as lost:
            raise _Temporary(SearchError(self._shown(f"{type(lost).__name__}: {lost}"))) from None
        self._check(response, body)
        try:
            return parse(json.loads(body))
        except SearchError as failure:
            raise _Temporary(failure) from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise SearchError(self._shown(f"an answer of an unexpected form: {self._start(body)}")) from None

    def _exchange(self, method: str, request: dict[str, Any]) -> tuple[httpx.Response, bytes]:
        """The client's own limit is for each read alone: a server that drips would hold an episode for ever."""
        deadline = time.monotonic() + self._tries.timeout_s
        body = b""
        with self._client.stream(method, self._url, **request) as response:
            for chunk in response.iter_bytes():
                body += chunk
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("the answer takes too long")
                if len(body) > _LONGEST_BODY:
                    raise SearchError(self._shown(f"an answer of more than {_LONGEST_BODY} bytes"))
        return response, body

    def _check(self, response: httpx.Response, body: bytes) -> None:
        code = response.status_code
        if code == 429:
            raise _Temporary(RateLimited(self._shown("too many requests (HTTP 429)")), _retry_after(response))
        if code >= 500:
            raise _Temporary(SearchError(self._shown(f"HTTP {code}")), _retry_after(response))
        if code in self._denied:
            raise AccessDenied(f"search: {self._name} refuses to answer (HTTP {code}); {self._denied[code]}")
        if code >= 400:
            raise Refused(self._shown(f"HTTP {code}: {self._start(body)}"))
        if code != 200:
            raise SearchError(self._shown(f"HTTP {code}: {self._start(body)}"))

    def _shown(self, message: str) -> str:
        return f"{self._name}: {self._without_secrets(message)}"

    def _start(self, body: bytes) -> str:
        return repr(self._without_secrets(body[:2000].decode("utf-8", "replace"))[:200])

    def _without_secrets(self, message: str) -> str:
        for secret in self._secrets:
            message = message.replace(secret, "[key]")
        return message


class _Temporary(Exception):
    """A failure that another try may overcome, after at least `wait_s` seconds."""

    def __init__(self, problem: SearchError, wait_s: float = 0.0) -> None:
        self.problem, self.wait_s = problem, wait_s


def _retry_after(response: httpx.Response) -> float:
    """Seconds of a Retry-After header in either of its forms, a number or a date; 0 without a valid one."""
    value = response.headers.get("Retry-After", "")
    if value.isascii() and value.isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
