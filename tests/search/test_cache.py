"""Answers kept on disk: what the modes do, that no process can damage a cache, and that purposes stay apart."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from score.config.schema import Search
from score.errors import ScoreError
from score.search import open_search, store, tool
from score.search.base import Local, NotRecorded, RateLimited, Result, SearchError
from score.search.cache import Cached
from score.search.store import Key, record_into, replay_from
from search.server import Answer, Server

FOUND = [Result("A", "about a", "https://a.example/"), Result("B", "about b")]
KEY = Key("engine", "who is it", 2, "en")


class Engine(Local):
    """Answers with a text of its own each time, as an engine that drifts."""

    name = "engine"

    def __init__(self, *outcomes):
        self.outcomes, self.queries, self.sent = list(outcomes), [], 0

    def search(self, query, k):
        self.queries.append(query)
        self.sent += 2  # one try in vain, each time
        outcome = self.outcomes.pop(0) if self.outcomes else [Result(f"answer {self.sent}", query)]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "train.sqlite"


def recording(path, engine):
    return Cached(engine, record_into(path, "train"), source="engine", language="en")


def replaying(path):
    return Cached(None, replay_from(path, "train"), source="engine", language="en")


def ask(backend, *queries, k=2):
    with contextlib.closing(backend):
        return [tool(backend, k)(query) for query in queries]


def test_what_was_recorded_is_answered_without_asking_and_looks_the_same(path):
    engine = Engine(FOUND)
    first, again = ask(recording(path, engine), "who is it", " who  is\nit ")
    (replayed,) = ask(replaying(path), "who is it")
    assert first == again == replayed == tool(Engine(FOUND), 2)("who is it")
    assert engine.queries == ["who is it"]


def test_nothing_found_is_an_answer_and_is_recorded(path):
    engine = Engine([])
    assert ask(recording(path, engine), "q", "q") == ["No results."] * 2
    assert ask(replaying(path), "q") == ["No results."]
    assert engine.queries == ["q"]


def test_another_k_language_or_engine_is_another_question(path):
    engine = Engine()
    ask(recording(path, engine), "q", k=1)
    ask(recording(path, engine), "q", k=2)
    ask(Cached(engine, record_into(path, "train"), source="engine", language="de"), "q", k=1)
    ask(Cached(engine, record_into(path, "train"), source="engine at another place", language="en"), "q", k=1)
    assert len(engine.queries) == 4


@pytest.mark.parametrize("failure", [RateLimited("slow down"), SearchError("down"), ScoreError("no key")])
def test_a_failure_is_raised_and_never_recorded(path, failure):
    engine = Engine(failure, FOUND)
    backend = recording(path, engine)
    with pytest.raises(type(failure)):
        backend.search("q", 2)
    assert backend.search("q", 2) == FOUND
    backend.close()
    assert engine.queries == ["q", "q"]


def test_a_replay_has_recorded_answers_alone(path):
    ask(recording(path, Engine()), "known")
    with pytest.raises(NotRecorded, match="unknown"):
        ask(replaying(path), "unknown")


def test_a_replay_needs_a_cache(path):
    with pytest.raises(ScoreError, match=r"no such search cache; record one first"):
        replay_from(path, "train")


@given(
    answers=st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20)), max_size=4),
    query=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30),
)
@settings(max_examples=60, deadline=None)
def test_any_answer_comes_back_as_it_was(tmp_path_factory, answers, query):
    results = [Result(*answer) for answer in answers]
    with record_into(tmp_path_factory.mktemp("any") / "c.sqlite", "train") as cache:
        key = Key("engine", query, 3, "en")
        assert cache.get(key) is None
        assert cache.put(key, results) == results == cache.get(key)


def test_the_first_of_two_answers_stays_and_both_askers_get_it(path):
    both_have_asked = threading.Barrier(2)

    class Slow(Engine):
        def search(self, query, k):
            both_have_asked.wait(10)
            return [Result(threading.current_thread().name, query)]

    got = {}

    def one(name):
        (got[name],) = ask(recording(path, Slow()), "q")

    threads = [threading.Thread(target=one, args=(name,), name=name) for name in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got["one"] == got["other"]
    assert [got["one"]] == ask(replaying(path), "q")
    with replay_from(path) as cache:
        assert len(list(cache.answers())) == 1


WRITER = """
import sys
from pathlib import Path
from score.search.base import Result
from score.search.store import Key, record_into
path, name, n = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
with record_into(path, "train") as cache:
    for i in range(n):
        cache.put(Key("engine", f"{name} {i}", 1, "en"), [Result(name, "x" * 2000)])
        (shared,) = cache.put(Key("engine", f"shared {i}", 1, "en"), [Result(name, "")])
        cache.count("engine", "hit")
        print(i, shared.title, flush=True)
"""


def test_eight_writers_and_a_kill_leave_every_committed_row(path):
    def writer(name, n):
        return subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name, str(n)], stdout=subprocess.PIPE, text=True
        )

    victim = writer("victim", 10**9)
    others = [writer(f"w{i}", 60) for i in range(7)]
    seen = [victim.stdout.readline() for _ in range(20)]
    victim.send_signal(signal.SIGKILL)
    seen += victim.stdout.read().splitlines(keepends=True)
    lines = {"victim": [line for line in seen if line.endswith("\n")]}
    for i, process in enumerate(others):
        lines[f"w{i}"] = process.communicate(timeout=120)[0].splitlines()
        assert process.returncode == 0
    assert victim.wait() == -signal.SIGKILL

    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with replay_from(path) as cache:
        stored = {key.query: results for key, results in cache.answers()}
        counted = cache.statistics()["engine"]
    for name, printed in lines.items():
        for i, shared in (line.split() for line in printed):
            assert stored[f"{name} {i}"] == [Result(name, "x" * 2000)]
            assert stored[f"shared {i}"] == [Result(shared, "")], "all got the same answer"
    assert {len(lines[f"w{i}"]) for i in range(7)} == {60}
    assert counted["hit"] >= 7 * 60
    assert counted["rows"] == len(stored)


def test_hits_are_counted_without_a_write_each(path):
    ask(recording(path, Engine(FOUND)), "q")
    with contextlib.closing(replaying(path)) as backend, contextlib.closing(sqlite3.connect(path)) as db:
        version = db.execute("PRAGMA data_version").fetchone()
        for _ in range(900):
            backend.search("q", 2)
        assert db.execute("PRAGMA data_version").fetchone() == version, "nobody has written"
    with replay_from(path) as cache:
        assert cache.statistics() == {"engine": {"rows": 1, "hit": 900, "miss": 1, "sent": 2}}


def test_a_cache_is_for_one_purpose(path):
    ask(recording(path, Engine()), "q")
    test = path.with_name("test.sqlite")
    shutil.copy(path, test)
    for open_it in (record_into, replay_from):
        with pytest.raises(ScoreError, match=r"recorded to train, not to test; .*search\.share_cache") as caught:
            open_it(test, "test")
        assert "\n" not in str(caught.value)
        with open_it(test, "test", any_purpose=True) as cache:
            assert cache.purpose == "train"


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100])
def test_another_file_is_not_taken_for_a_cache(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    for open_it in (record_into, replay_from):
        with pytest.raises(ScoreError, match=r"train\.sqlite: (not|cannot be opened as) a search cache"):
            open_it(path, "train")
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ScoreError, match="cannot make a search cache there"):
        record_into(tmp_path / "file" / "train.sqlite", "train")


def test_on_a_network_file_system_a_cache_is_replayed_and_not_recorded(path, monkeypatch):
    ask(recording(path, Engine(FOUND)), "q")
    monkeypatch.setattr(store, "network_file_system", lambda path: "nfs4")
    with pytest.raises(ScoreError, match=r"needs a local disk, and this is nfs4; .* import"):
        record_into(path, "train")
    before = path.read_bytes()
    assert ask(replaying(path), "q") == [tool(Engine(FOUND), 2)("q")]
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["train.sqlite"], "nothing that nodes would have to share"


def test_a_network_cache_that_is_still_recorded_into_is_not_half_read(path, monkeypatch):
    backend = recording(path, Engine(FOUND))
    backend.search("q", 2)
    monkeypatch.setattr(store, "network_file_system", lambda path: "nfs4")
    with pytest.raises(ScoreError, match="still records"):
        replay_from(path, "train")
    backend.close()


def test_a_full_or_broken_disk_is_a_failure_of_the_episode(path):
    backend = recording(path, Engine())
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE answers")
    with pytest.raises(SearchError, match=r"search cache .*train\.sqlite"):
        backend.search("q", 2)


def test_the_config_opens_a_cache_per_purpose_and_a_replay_without_a_key(tmp_path, monkeypatch):
    server = Server()
    server.script = [Answer(body=json.dumps({"organic": [{"title": "T", "snippet": "S", "link": "L"}]}))]
    monkeypatch.setenv("SERPER_API_KEY", "k")
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    monkeypatch.setenv("SERPER", server.url)
    recorded = Search(backend="serper", url="$SERPER/search", mode="record", cache="$SCRATCH/search", k=1)
    live = recorded.model_copy(update={"mode": "live"})
    replayed = recorded.model_copy(update={"mode": "replay"})
    texts = [*ask(open_search(live, "train"), "q"), *ask(open_search(recorded, "train"), "q", "q")]
    server.close()
    monkeypatch.delenv("SERPER_API_KEY")
    monkeypatch.delenv("SERPER")
    texts += ask(open_search(replayed, "train"), "q")
    assert set(texts) == {"Page: 0\nTitle: T\nSnippet: S"}
    assert len(server.requests) == 2
    assert [file.name for file in (tmp_path / "search").iterdir()] == ["train.sqlite"]
    with pytest.raises(ScoreError, match=r"test\.sqlite: no such search cache"):
        open_search(replayed, "test")
    with pytest.raises(ScoreError, match=r"\$SERPER/search.* not set"):
        open_search(recorded, "test")
    monkeypatch.delenv("SCRATCH")
    with pytest.raises(ScoreError, match=r"search\.cache: .*not set"):
        open_search(replayed, "train")


def test_a_local_corpus_can_be_recorded_and_its_content_is_part_of_the_key(tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"title": "Etna", "text": "a volcano in Sicily"}\n')
    recorded = Search(backend="bm25", corpus=str(corpus), mode="record", cache=str(tmp_path), k=2)
    first = ask(open_search(recorded, "test"), "volcano")
    assert ask(open_search(recorded.model_copy(update={"mode": "replay"}), "test"), "volcano") == first
    corpus.write_text('{"title": "Erebus", "text": "a volcano in Antarctica"}\n')
    assert "Erebus" in ask(open_search(recorded, "test"), "volcano")[0]
