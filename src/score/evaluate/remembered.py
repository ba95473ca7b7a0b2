"""math-verify's verdicts in a file, for later runs and for other agents that give the same answer.

A comparison takes 10 ms and more where LaTeX has to be parsed, and the wrong answers to a question repeat. Verdicts are
known by the versions of what decides them; one that came of a timeout is not kept. The file is only a help: where it is
missing, damaged or cannot be locked, that costs time and no verdict.
"""

from __future__ import annotations

import functools
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path

from score.evaluate.mathverify import Verifier
from score.records import content_key

log = logging.getLogger(__name__)

WAIT_S = 30.0  # for another process that writes

TABLE = "CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, equal INTEGER NOT NULL) WITHOUT ROWID"


class Remembered:
    """A verifier that looks up what it is asked before it compares; `found` is what it had to compare."""

    def __init__(self, known: dict[str, bool], verifier: Verifier) -> None:
        self.found: dict[str, bool] = {}
        self._known, self._verifier = known, verifier

    def equal(self, prediction: str, golds: Sequence[str]) -> bool:
        """As `Verifier.equal`."""
        key = content_key(_deciders(), prediction, list(golds))
        if key not in self._known:
            verdict = self._verifier.compare(prediction, golds)
            self._known[key] = bool(verdict)  # a timeout, too: the next sample's would take as long
            if verdict is not None:
                self.found[key] = verdict
        return self._known[key]


@contextmanager
def remembered(path: Path) -> Iterator[Remembered]:
    """A verifier that begins with the verdicts in a file, and adds its own to them at the end, whatever happens."""
    verifier = Verifier()
    ours = Remembered(_read(path), verifier)
    try:
        yield ours
    finally:
        verifier.close()
        _add(path, ours.found)


@functools.cache
def _deciders() -> str:
    """The versions of all that decides a verdict."""
    from score.fingerprint import code  # a tenth of a second, which most parts do not need

    packages = ("math-verify", "latex2sympy2_extended", "sympy", "antlr4-python3-runtime")
    return content_key(code(("evaluate/mathverify.py", "evaluate/plain.py")), *map(version, packages))


def _read(path: Path) -> dict[str, bool]:
    try:
        if not path.exists():
            return {}
        with closing(sqlite3.connect(path, timeout=WAIT_S)) as file:
            return {key: bool(equal) for key, equal in file.execute("SELECT key, equal FROM verdicts")}
    except (sqlite3.Error, OSError) as error:
        log.warning("%s: the verdicts kept there cannot be read (%s); all are made anew", path, error)
        return {}


def _add(path: Path, found: dict[str, bool]) -> None:
    if not found:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=WAIT_S)) as file, file:
            file.execute(TABLE)
            file.executemany("INSERT OR IGNORE INTO verdicts VALUES (?, ?)", found.items())
    except (sqlite3.Error, OSError) as error:
        log.warning("%s: %d verdicts could not be kept (%s); delete the file if it is damaged", path, len(found), error)
