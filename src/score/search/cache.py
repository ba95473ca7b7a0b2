"""A search backend behind a cache: what was recorded is answered from the disk, exactly as it was answered first.

A model cannot tell the two apart: there is one rendering, and it knows nothing of caches (hazard 31). Failures are
never recorded.
"""

from __future__ import annotations

import threading

from score.search.base import NotRecorded, Result, SearchBackend, normalised
from score.search.store import Key, Store


class Cached:
    """Implements `SearchBackend`; thread-safe.

    Args:
        backend: whom to ask what is not recorded; None to raise `NotRecorded` instead.
        source, language: the parts of the key that are the same for all queries.
    """

    def __init__(self, backend: SearchBackend | None, store: Store, *, source: str, language: str) -> None:
        self.name = backend.name if backend else source
        self._backend, self._store, self._source, self._language = backend, store, source, language
        self._sent, self._counting = 0, threading.Lock()

    @property
    def sent(self) -> int:
        return self._backend.sent if self._backend else 0

    def search(self, query: str, k: int) -> list[Result]:
        key = Key(self._source, normalised(query), k, self._language)
        recorded = self._store.get(key)
        self._store.count(self._source, "miss" if recorded is None else "hit")
        if recorded is not None:
            return recorded
        if self._backend is None:
            raise NotRecorded(f"{self._store.path}: no recorded answer to {query[:200]!r} (search.mode: replay)")
        try:
            results = self._backend.search(key.query, k)
        finally:
            self._count_sent()
        return self._store.put(key, results)

    def close(self) -> None:
        self._store.close()
        if self._backend:
            self._backend.close()

    def _count_sent(self) -> None:
        with self._counting:
            now = self._backend.sent
            new, self._sent = now - self._sent, now
        if new:
            self._store.count(self._source, "sent", new)
