"""JSON Lines on disk: atomic files, and work files that survive a kill at any byte."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from score.errors import ScoreError
from score.jsonl import ResumableRows, read_rows, replaced_file, write_json, write_rows

texts = st.text(max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
rows = st.lists(st.dictionaries(texts, values, max_size=3), max_size=6)


@given(rows)
def test_rows_survive_the_disk(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "deep" / "file.jsonl"
    write_rows(path, rows)
    assert read_rows(path) == rows
    assert path.read_bytes().count(b"\n") == len(rows)


@pytest.mark.parametrize("text", ["\ud800", "a\u2028b\x85c\rd\ne", "\x00", "数学 \U0001f600"])
def test_awkward_text_stays_on_its_line(tmp_path, text):
    write_rows(tmp_path / "x.jsonl", [{"text": text}, {"text": "next"}])
    assert read_rows(tmp_path / "x.jsonl") == [{"text": text}, {"text": "next"}]


def test_blank_lines_are_skipped_and_bad_lines_are_named(tmp_path):
    path = tmp_path / "file.jsonl"
    path.write_text('{"a": 1}\n\n  \n{"a": 2}')
    assert read_rows(path) == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": 1}\n\n{"a": \n')
    with pytest.raises(ScoreError, match=r"file\.jsonl:3: not valid JSON"):
        read_rows(path)
    path.write_bytes(b'{"a": 1}\n[1]\n')
    with pytest.raises(ScoreError, match=r"file\.jsonl:2: expected a JSON object, found list"):
        read_rows(path)
    path.write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(ScoreError, match=r"file\.jsonl:1: not valid JSON"):
        read_rows(path)
    with pytest.raises(ScoreError, match="cannot be read"):
        read_rows(tmp_path / "absent.jsonl")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.jsonl"
    write_rows(path, [{"a": 1}])
    with pytest.raises(ZeroDivisionError):
        write_rows(path, ({"a": 1 // n} for n in (1, 0)))
    with pytest.raises(ValueError, match="Out of range float"):
        write_rows(path, [{"a": float("nan")}])
    assert read_rows(path) == [{"a": 1}]
    assert os.listdir(tmp_path) == ["file.jsonl"]


def test_a_half_written_file_is_never_visible(tmp_path):
    path = tmp_path / "file.txt"
    with replaced_file(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"half"


def test_results_are_readable_by_the_group_where_the_umask_allows_it(tmp_path):
    before = os.umask(0o022)
    try:
        write_json(tmp_path / "x.json", {"a": 1})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) == 0o644


keyed = st.lists(st.tuples(st.sampled_from("abcdef"), st.dictionaries(texts, values, max_size=2)), max_size=7)


@settings(max_examples=60)
@given(keyed, st.data())
def test_a_kill_at_any_byte_loses_at_most_the_last_row(tmp_path_factory, keyed, data):
    path = tmp_path_factory.mktemp("work") / "work.jsonl"
    sizes, states = [0], [{}]
    with ResumableRows(path) as work:
        for key, row in keyed:
            work.append(key, row)
            sizes.append(path.stat().st_size)
            states.append(dict(work.done))
    cut = data.draw(st.integers(0, sizes[-1]))
    with open(path, "r+b") as file:
        file.truncate(cut)
    whole = max(i for i, size in enumerate(sizes) if size <= cut)
    with ResumableRows(path) as work:
        assert work.done == states[whole]
        work.append("new", {"n": 1})
    with ResumableRows(path) as work:
        assert work.done == states[whole] | {"new": {"key": "new", "n": 1}}


def test_a_killed_process_loses_nothing_that_it_appended(tmp_path):
    path = tmp_path / "work.jsonl"
    script = (
        "import os, signal, sys; from score.jsonl import ResumableRows\n"
        "rows = ResumableRows(sys.argv[1], sync_seconds=1e9)\n"
        "for i in range(5): rows.append(str(i), {'i': i})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    source = Path(__file__).parents[2] / "src"
    killed = subprocess.run([sys.executable, "-c", script, str(path)], env=os.environ | {"PYTHONPATH": str(source)})
    assert killed.returncode == -9
    with ResumableRows(path) as work:
        assert list(work.done) == list("01234")


def test_a_later_row_replaces_the_earlier_one(tmp_path):
    path = tmp_path / "work.jsonl"
    with ResumableRows(path) as work:
        work.append("q1", {"stop": "infrastructure_error"})
        work.append("q1", {"stop": "answered", "key": "ignored"})
    with ResumableRows(path) as work:
        assert work.done == {"q1": {"key": "q1", "stop": "answered"}}
        work.finish(tmp_path / "out.jsonl", work.done.values())
    assert read_rows(tmp_path / "out.jsonl") == [{"key": "q1", "stop": "answered"}]
    assert path.exists()


def test_two_jobs_never_share_a_work_file(tmp_path):
    path = tmp_path / "work.jsonl"
    with ResumableRows(path), pytest.raises(ScoreError, match=r"work\.jsonl: another job is writing this file"):
        ResumableRows(path)
    ResumableRows(path).close()


def test_damage_before_the_last_line_is_an_error_not_a_smaller_file(tmp_path):
    path = tmp_path / "work.jsonl"
    path.write_text(json.dumps({"key": "a"}) + "\n{bro\n" + json.dumps({"key": "b"}) + "\n")
    with pytest.raises(ScoreError, match=r"work\.jsonl:2: not valid JSON"):
        ResumableRows(path)
    path.write_text('{"question": "?"}\n')
    with pytest.raises(ScoreError, match=r"work\.jsonl:1: .*not a work file"):
        ResumableRows(path)
