"""python -m score.search: caches carried between machines, and what was asked."""

from __future__ import annotations

import pytest

from score.errors import ScoreError
from score.jsonl import read_rows, write_rows
from score.search.__main__ import main
from score.search.base import Result
from score.search.store import Key, record_into, replay_from


def make(path, answers, purpose="train", backend="serper"):
    with record_into(path, purpose) as cache:
        for query, title in answers.items():
            cache.put(Key(backend, query, 3, "en"), [Result(title, "s", "u")] if title else [])
    return path


def export(cache, out):
    main(["export", "--cache", str(cache), "--out", str(out)])
    return out


def answers(path):
    with replay_from(path) as cache:
        return {key.query: [r.title for r in results] for key, results in cache.answers()}


def test_an_export_is_plain_sorted_and_whole(tmp_path):
    out = export(make(tmp_path / "a.sqlite", {"b": "B", "a": None}), tmp_path / "out.jsonl")
    common = {"purpose": "train", "backend": "serper", "k": 3, "language": "en"}
    assert read_rows(out) == [
        {**common, "query": "a", "results": []},
        {**common, "query": "b", "results": [{"title": "B", "snippet": "s", "url": "u"}]},
    ]


def test_nodes_caches_are_joined_and_importing_again_changes_nothing(tmp_path, caplog):
    caplog.set_level("INFO")
    one = export(make(tmp_path / "1.sqlite", {"a": "A", "shared": "first"}), tmp_path / "1.jsonl")
    two = export(make(tmp_path / "2.sqlite", {"b": "B", "shared": "second"}), tmp_path / "2.jsonl")
    joined = tmp_path / "joined.sqlite"
    main(["import", "--cache", str(joined), str(one), str(two)])
    assert answers(joined) == {"a": ["A"], "b": ["B"], "shared": ["first"]}
    assert "2.jsonl: another answer to Key(backend='serper', query='shared'" in caplog.text
    assert "2.jsonl: 2 answers, 1 new, 1 conflicts" in caplog.text
    before = export(joined, tmp_path / "before.jsonl").read_bytes()
    main(["import", "--cache", str(joined), str(tmp_path / "before.jsonl"), str(one)])
    assert export(joined, tmp_path / "after.jsonl").read_bytes() == before


def test_answers_for_train_do_not_get_into_a_cache_for_test(tmp_path):
    train = export(make(tmp_path / "train.sqlite", {"a": "A"}), tmp_path / "train.jsonl")
    test = make(tmp_path / "test.sqlite", {"b": "B"}, "test")
    with pytest.raises(ScoreError, match="recorded to test, not to train"):
        main(["import", "--cache", str(test), str(train)])
    assert answers(test) == {"b": ["B"]}
    both = [str(train), str(export(test, tmp_path / "test.jsonl"))]
    with pytest.raises(ScoreError, match="both train and test"):
        main(["import", "--cache", str(tmp_path / "new.sqlite"), *both])
    assert not (tmp_path / "new.sqlite").exists()
    main(["import", "--share", "--cache", str(test), str(train)])
    assert answers(test) == {"a": ["A"], "b": ["B"]}


GOOD = {"purpose": "train", "backend": "serper", "query": "q", "k": 3, "language": "en", "results": []}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": "3"}, "'k' as a int"),
        ({"k": True}, "'k' as a int"),
        ({"query": None}, "'query' as a str"),
        ({"purpose": "validation"}, "purpose, train or test"),
        ({"results": [{"title": "t"}]}, "a result has"),
        ({"results": [{"title": 1, "snippet": "s", "url": "u"}]}, "are texts"),
        ({"results": ["t"]}, "a result has"),
    ],
)
def test_a_broken_row_is_named_by_place_and_nothing_is_imported(tmp_path, change, message):
    write_rows(tmp_path / "in.jsonl", [GOOD, GOOD | change])
    with pytest.raises(ScoreError, match=rf"in\.jsonl:2: .*{message}"):
        main(["import", "--cache", str(tmp_path / "c.sqlite"), str(tmp_path / "in.jsonl")])
    assert not (tmp_path / "c.sqlite").exists()


def test_stats_show_what_was_asked_and_what_it_cost(tmp_path, capsys):
    path = make(tmp_path / "c.sqlite", {"a": "A", "b": "B"})
    make(path, {"a": "A"}, backend="retrieval http://host:8000")
    with record_into(path, "train") as cache:
        cache.count("serper", "hit", 40)
        cache.count("serper", "miss", 2)
        cache.count("serper", "sent", 3)
    main(["stats", "--cache", str(path)])
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["purpose:", "train"],
        ["backend", "rows", "hits", "misses", "requests", "cost"],
        ["retrieval", "http://host:8000", "1", "0", "0", "0", "-"],
        ["serper", "2", "40", "2", "3", "-"],
    ]
    main(["stats", "--cache", str(path), "--price", "serper=2.5"])
    assert capsys.readouterr().out.splitlines()[-1].split()[-1] == "0.0075"
    with pytest.raises(ScoreError, match="no backend tavily"):
        main(["stats", "--cache", str(path), "--price", "tavily=1"])


def test_a_cache_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(ScoreError, match="no such search cache"):
        main(["stats", "--cache", str(tmp_path / "c.sqlite")])
    assert not list(tmp_path.iterdir())
