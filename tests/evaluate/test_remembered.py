"""Verdicts on mathematics that are kept: asked for once, and no worse off without the file."""

import sqlite3

import pytest

from score.evaluate import remembered
from score.evaluate.mathverify import Verifier
from score.evaluate.metrics import math_equal


@pytest.fixture
def asked(monkeypatch):
    """What math-verify is really asked."""
    asked, compare = [], Verifier.compare

    def noted(self, prediction, golds):
        asked.append(prediction)
        return None if prediction == "slow" else compare(self, prediction, golds)

    monkeypatch.setattr(Verifier, "compare", noted)
    return asked


GUESSES = (r"\frac{3}{4}", "3/4", "60%", "slow", "slow")


def answers(path):
    with remembered.remembered(path) as verifier:
        return [math_equal(guess, ["0.75"], verifier) for guess in GUESSES]


def interrupted(path):
    with remembered.remembered(path) as verifier:
        verifier.equal("1/4", ["0.25"])
        raise KeyboardInterrupt


def test_a_comparison_is_made_once_and_a_timeout_is_not_kept(tmp_path, asked):
    path = tmp_path / "work" / "math.sqlite"
    assert answers(path) == [True, True, False, False, False]
    assert asked == list(GUESSES[:-1]), "nor is it waited for twice"
    asked.clear()
    assert answers(path) == [True, True, False, False, False]
    assert asked == ["slow"]


def test_other_versions_know_nothing_of_it(tmp_path, asked, monkeypatch):
    answers(tmp_path / "m.sqlite")
    monkeypatch.setattr(remembered, "_deciders", lambda: "other")
    asked.clear()
    answers(tmp_path / "m.sqlite")
    assert len(asked) == 4


@pytest.mark.parametrize("harm", ["damaged", "other table", "locked", "no folder"])
def test_without_the_file_the_verdicts_are_the_same(tmp_path, harm, caplog, monkeypatch):
    path = tmp_path / ("file/m.sqlite" if harm == "no folder" else "m.sqlite")
    monkeypatch.setattr(remembered, "WAIT_S", 0.1)
    holder = None
    if harm == "no folder":
        (tmp_path / "file").touch()
    elif harm == "damaged":
        path.write_bytes(b"this is no database, nor was it ever one" * 100)
    else:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("CREATE TABLE other (x)" if harm == "other table" else remembered.TABLE)
        holder.execute("BEGIN EXCLUSIVE" if harm == "locked" else "CREATE TABLE verdicts (x)")
    assert answers(path) == [True, True, False, False, False]
    assert "could not be kept" in caplog.text
    if holder:
        holder.close()


def test_what_was_found_out_before_an_error_is_kept(tmp_path, asked):
    path = tmp_path / "m.sqlite"
    with pytest.raises(KeyboardInterrupt):
        interrupted(path)
    with remembered.remembered(path) as verifier:
        assert verifier.equal("1/4", ["0.25"])
    assert asked == ["1/4"]
