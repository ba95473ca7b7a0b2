"""The web_search tool and the backend factory."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from score.errors import ScoreError
from score.search import MAX_QUERY_CHARS, open_backend, tool
from score.search.base import Result, SearchError
from score.search.cache import Cached
from score.search.store import record_into
from search.server import Answer, Server


class Recorder:
    name = "recorder"

    def __init__(self, results=()):
        self.queries, self.results = [], list(results)

    def search(self, query, k):
        self.queries.append((query, k))
        return self.results[:k]


def test_results_have_the_published_form():
    search = tool(Recorder([Result("A", "about a"), Result("B", "about b"), Result("C", "c")]), k=2)
    assert search("q") == "Page: 0\nTitle: A\nSnippet: about a\nPage: 1\nTitle: B\nSnippet: about b"


def test_nothing_found_says_so():
    assert tool(Recorder(), k=3)("q") == "No results."


def test_white_space_is_normalised_before_the_backend_sees_the_query():
    backend = Recorder()
    tool(backend, k=3)("  who \n is\tit ")
    assert backend.queries == [("who is it", 3)]


UNSENDABLE = ["", " \n\t", "x" * (MAX_QUERY_CHARS + 1), "x" * 100_000, "a\0b", "half a pair \ud83d"]


@pytest.mark.parametrize("query", UNSENDABLE, ids=lambda query: repr(query)[:12])
def test_an_unusable_query_is_answered_without_the_backend(query):
    backend = Recorder()
    assert tool(backend, k=3)(query).startswith("Error: the search query")
    assert backend.queries == []


@given(st.text(st.characters(exclude_categories=[]), max_size=60))
@settings(max_examples=300, deadline=None)
@example("\0")
@example("\udc80 \ud800")
@example("\x1c\x85\u2028")
def test_any_query_is_answered_or_refused_in_words(served, query):
    """Whatever a model writes goes through the cache's database and the HTTP client, or is not sent at all."""
    for search in served:
        text = search(query)
        text.encode()
        assert text == "No results." or text.startswith("Error: the search query")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    server = Server()
    server.script = [Answer(body='{"result": [[]], "results": []}')]
    backends = [
        Cached(
            open_backend(kind, url=server.url),
            record_into(tmp_path_factory.mktemp(kind) / "train.sqlite", "train"),
            source=kind,
            language="en",
        )
        for kind in ("searxng", "retrieval")
    ]
    yield [tool(backend, 3) for backend in backends]
    for backend in backends:
        backend.close()
    server.close()


def test_a_failing_backend_is_not_turned_into_text():
    class Failing:
        name = "failing"

        def search(self, query, k):
            raise SearchError("down")

    with pytest.raises(SearchError):
        tool(Failing(), k=3)("q")


def test_without_search_the_model_is_told_so_and_not_that_nothing_was_found():
    text = tool(open_backend("none"), k=3)("q")
    assert "not available" in text
    assert text != "No results."


def test_the_micro_world_is_a_backend():
    backend = open_backend("micro")
    assert backend.name == "micro"
    assert backend.search("no such query at all", 3) == []


def test_mistakes_are_named():
    with pytest.raises(ScoreError, match=r"unknown backend 'bing'.*bm25"):
        open_backend("bing")
    with pytest.raises(ScoreError, match=r"'bm25'.*pathh"):
        open_backend("bm25", pathh="x")
    with pytest.raises(ScoreError, match=r"search\.corpus"):
        open_backend("bm25", path=None)
