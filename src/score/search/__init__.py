"""Search: backends behind one protocol (`base.SearchBackend`), and the `web_search` tool made of one of them.

    backend = open_search(config.search, "train")
    pool.open({"web_search": tool(backend, k=5)})

A backend that fails raises `SearchError`: an infrastructure error of the episode, never a text for the model.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from score.config.schema import Search
from score.errors import ScoreError
from score.provenance import file_digest
from score.search.base import SearchBackend, normalised, render
from score.search.cache import Cached
from score.search.store import Purpose, record_into, replay_from

MAX_QUERY_CHARS = 1000

_BACKENDS = {
    "none": "score.search.none:NoSearch",
    "bm25": "score.search.bm25:Bm25",
    "serper": "score.search.serper:Serper",
    "tavily": "score.search.tavily:Tavily",
    "searxng": "score.search.searxng:SearXNG",
    "retrieval": "score.search.retrieval:Retrieval",
    "micro": "score.micro.backend:KnowledgeBase",
}
_LANGUAGES = ("serper", "searxng")


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


def open_search(settings: Search, purpose: Purpose) -> SearchBackend:
    """What the config describes, behind the purpose's cache if there is to be one. A replay needs no key.

    Raises `ScoreError` for a missing key, corpus or cache, and for a cache of the other purpose.
    """
    if settings.mode == "live":
        return _backend(settings)
    path = Path(_expanded("cache", settings.cache), f"{purpose}.sqlite")
    if settings.mode == "replay":
        backend, store = None, replay_from(path, purpose, any_purpose=settings.share_cache)
    else:
        backend, store = _backend(settings), record_into(path, purpose, any_purpose=settings.share_cache)
    return Cached(backend, store, source=source(settings), language=settings.language)


def source(settings: Search) -> str:
    """Whose answers these are, in a cache: the kind of backend, and which server or corpus where there are many."""
    if settings.backend == "bm25":
        return f"bm25 {file_digest([Path(settings.corpus)])[:16]}"
    if settings.url:
        return f"{settings.backend} {settings.url}"  # with $VARIABLES as they stand: the same on every node
    return settings.backend


def tool(backend: SearchBackend, k: int) -> Callable[[str], str]:
    """The `web_search` function for a sandbox: a query in, at most k rendered results out.

    A query that is empty, overlong or not to be sent is the model's mistake and answered in words, without asking the
    backend. White space is normalised first, so that equal queries are equal to a cache.
    """

    def web_search(query: str) -> str:
        if "\0" in query or any("\ud800" <= character <= "\udfff" for character in query):
            return "Error: the search query holds characters that no text has (NUL or half a surrogate pair)."
        query = normalised(query)
        if not query:
            return "Error: the search query is empty."
        if len(query) > MAX_QUERY_CHARS:
            return f"Error: the search query has {len(query)} characters, at most {MAX_QUERY_CHARS} are allowed."
        return render(backend.search(query, k))

    return web_search


def _backend(settings: Search) -> SearchBackend:
    options: dict[str, Any] = {"path": settings.corpus} if settings.backend == "bm25" else {}
    if settings.url:
        options["url"] = _expanded("url", settings.url)
    if settings.backend in _LANGUAGES:
        options["language"] = settings.language
    return open_backend(settings.backend, **options)


def _expanded(name: str, text: str) -> str:
    expanded = os.path.expandvars(text)
    if "$" in expanded:
        raise ScoreError(f"search.{name}: {text!r} names an environment variable that is not set")
    return expanded
