"""BM25 over a JSON Lines corpus."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from score.errors import ScoreError
from score.search.base import Result
from score.search.bm25 import Bm25

PAGES = [
    {
        "title": "Etna",
        "text": "Mount Etna is an active volcano on the east coast of Sicily.",
        "url": "https://a.example/",
    },
    {"title": "Sicily", "text": "Sicily is the largest island in the Mediterranean Sea."},
    {"title": "Granite", "text": "Granite is a coarse-grained intrusive rock."},
    {"title": "Basalt", "text": "Basalt is a fine-grained rock; volcanoes make most of it."},
]

WORDS = ("volcano", "sicily", "rock", "island", "sea", "etna", "zebra")


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return Bm25(write(tmp_path_factory.mktemp("bm25") / "corpus.jsonl", PAGES))


def test_the_best_page_comes_first_with_its_fields(index):
    assert index.search("active volcano in Sicily", 3)[0] == Result("Etna", PAGES[0]["text"], "https://a.example/")


def test_words_are_stemmed_and_titles_count(index):
    assert {r.title for r in index.search("volcano", 5)} == {"Etna", "Basalt"}
    assert index.search("granites", 1)[0].title == "Granite"


@pytest.mark.parametrize("query", ["zeppelin", "the of is", "?!", ""])
def test_no_common_word_is_no_result(index, query):
    assert index.search(query, 5) == []


@given(k=st.integers(0, 9), words=st.lists(st.sampled_from(WORDS)))
@settings(max_examples=60, deadline=None)
def test_fewer_results_are_a_prefix_of_more(index, k, words):
    every = index.search(" ".join(words), len(PAGES))
    assert index.search(" ".join(words), k) == every[:k]
    assert len(set(every)) == len(every)


def test_equal_pages_keep_the_order_of_the_file(tmp_path):
    pages = [{"title": f"page {i:03}", "text": "the same words"} for i in range(50)]
    titles = [r.title for r in Bm25(write(tmp_path / "c.jsonl", pages)).search("same words", 7)]
    assert titles == [f"page {i:03}" for i in range(7)]


def test_threads_get_what_one_thread_gets(index):
    queries = random.Random(0).choices(["volcano", "rocks", "largest island", "Etna coast"], k=200)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda q: index.search(q, 3), queries)) == [index.search(q, 3) for q in queries]


def test_snippets_are_cut(tmp_path):
    index = Bm25(write(tmp_path / "c.jsonl", [{"title": "t", "text": "word " * 100}]), snippet_chars=9)
    assert index.search("word", 1)[0].snippet == "word word"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"title": "a", "text": "b"}\n{"title": "a"}\n', r"c\.jsonl:2: .*`text`"),
        ('{"title": "a", "text": "b"}\n\n{torn', r"c\.jsonl:3: no JSON"),
        ("[]\n", r"c\.jsonl:1: expected an object"),
        ("\n", r"c\.jsonl: the search corpus is empty"),
    ],
)
def test_a_broken_corpus_is_named_by_place(tmp_path, content, message):
    (tmp_path / "c.jsonl").write_text(content)
    with pytest.raises(ScoreError, match=message):
        Bm25(tmp_path / "c.jsonl")


def test_a_missing_corpus_is_named(tmp_path):
    with pytest.raises(ScoreError, match=r"nowhere\.jsonl: cannot read"):
        Bm25(tmp_path / "nowhere.jsonl")
