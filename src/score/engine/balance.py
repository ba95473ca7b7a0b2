"""Which of several equal servers answers a request: the one that knows its conversation, else the one with least to do.

A server keeps what it has computed of a conversation (prefix caching), so all of an episode's requests go to one.
"""

from __future__ import annotations

import contextlib
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence

_MOST_KNOWN = 65536  # conversations; the ones not heard of for longest are forgotten
_REST_S = 30.0  # so long a server that could not be reached is asked after the others


class Balancer:
    """Not for use by several threads."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.in_flight = dict.fromkeys(urls, 0)
        self._given = dict.fromkeys(urls, 0)  # conversations, to take turns where the rest is equal
        self._resting: dict[str, float] = {}  # until when, of time.monotonic
        self._home: OrderedDict[Hashable, str] = OrderedDict()

    def order(self, conversation: Hashable) -> list[str]:
        """All servers, best first; those that could not be reached lately come last."""
        now = time.monotonic()

        def rank(url: str) -> tuple[bool, bool, int, int]:
            away = self._home.get(conversation) != url
            return self._resting.get(url, now) > now, away, self.in_flight[url], self._given[url]

        return sorted(self.in_flight, key=rank)

    @contextlib.contextmanager
    def asking(self, url: str, conversation: Hashable) -> Iterator[None]:
        """A request to a server is in flight during the `with` block; the conversation stays there."""
        if self._home.get(conversation) != url:
            self._home[conversation] = url
            self._given[url] += 1
            if len(self._home) > _MOST_KNOWN:
                self._home.popitem(last=False)
        self._home.move_to_end(conversation)
        self.in_flight[url] += 1
        try:
            yield
        finally:
            self.in_flight[url] -= 1

    def failed(self, url: str) -> None:
        """It could not be reached."""
        self._resting[url] = time.monotonic() + _REST_S

    def answered(self, url: str) -> None:
        self._resting.pop(url, None)
