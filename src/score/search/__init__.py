"""Search: backends behind one protocol (`base.SearchBackend`), and the `web_search` tool made of one of them.

    backend = open_backend("bm25", path="corpus.jsonl")
    pool.open({"web_search": tool(backend, k=5)})

A backend that fails raises `SearchError`: an infrastructure error of the episode, never a text for the model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

from score.errors import ScoreError
from score.search.base import SearchBackend, render

MAX_QUERY_CHARS = 1000

_BACKENDS = {
    "none": "score.search.none:NoSearch",
    "bm25": "score.search.bm25:Bm25",
    "serper": "score.search.serper:Serper",
    "micro": "score.micro.backend:KnowledgeBase",
}


def open_backend(kind: str, **settings: Any) -> SearchBackend:
    """The backend of that kind; `settings` go to its constructor. Raises `ScoreError` for an unknown one of either."""
    if kind not in _BACKENDS:
        raise ScoreError(f"search: unknown backend {kind!r}; known: {', '.join(_BACKENDS)}")
    module, name = _BACKENDS[kind].split(":")
    backend = getattr(import_module(module), name)
    try:
        inspect.signature(backend).bind(**settings)
    except TypeError as problem:
        raise ScoreError(f"search: settings of backend {kind!r}: {problem}") from problem
    return backend(**settings)


def tool(backend: SearchBackend, k: int) -> Callable[[str], str]:
    """The `web_search` function for a sandbox: a query in, at most k rendered results out.

    An empty or overlong query is the model's mistake and answered in words, without asking the backend. White space
    is normalised first, so that equal queries are equal to a cache.
    """

    def web_search(query: str) -> str:
        query = " ".join(query.split())
        if not query:
            return "Error: the search query is empty."
        if len(query) > MAX_QUERY_CHARS:
            return f"Error: the search query has {len(query)} characters, at most {MAX_QUERY_CHARS} are allowed."
        return render(backend.search(query, k))

    return web_search
