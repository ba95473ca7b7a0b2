"""The web_search tool and the backend factory."""

from __future__ import annotations

import pytest

from score.errors import ScoreError
from score.search import MAX_QUERY_CHARS, open_backend, tool
from score.search.base import Result, SearchError


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


@pytest.mark.parametrize("query", ["", " \n\t", "x" * (MAX_QUERY_CHARS + 1)])
def test_an_unusable_query_is_answered_without_the_backend(query):
    backend = Recorder()
    assert tool(backend, k=3)(query).startswith("Error: the search query")
    assert backend.queries == []


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
