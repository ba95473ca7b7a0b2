"""Search answers on disk: one SQLite file that many processes read and write at once, in WAL mode.

A file belongs to one purpose, "train" or "test", which it remembers. Its first answer to a query stays its answer. A
process killed at any moment loses nothing that was committed and leaves the file whole. WAL needs memory that the
processes share, so a file that is recorded into must be on a local disk; a finished one can be read from anywhere.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal

from score.errors import ScoreError
from score.search.base import Result, SearchError

log = logging.getLogger("search")

Purpose = Literal["train", "test"]
"""train: rollouts, correction and RL; test: evaluation."""

_WAIT_S = 60.0
_FLUSH_EVERY = 1000
_APPLICATION_ID, _VERSION = 0x53436F52, 1
_SCHEMA = f"""
PRAGMA journal_mode = WAL;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
CREATE TABLE purpose (name TEXT NOT NULL);
CREATE TABLE answers (
    backend TEXT, query TEXT, k INTEGER, language TEXT, results TEXT NOT NULL,
    PRIMARY KEY (backend, query, k, language)
);
CREATE TABLE counts (backend TEXT, event TEXT, n INTEGER NOT NULL, PRIMARY KEY (backend, event));
"""
_NETWORK = {
    *("nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "smb3", "ceph", "afs", "pvfs2", "orangefs", "panfs"),
    *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.beegfs"),
}


@dataclass(frozen=True)
class Key:
    """What an answer depends on. `backend`: the engine, with what tells it from others of its kind."""

    backend: str
    query: str
    k: int
    language: str


class Store:
    """An open cache file; thread-safe. Failures of the disk are `SearchError`s: the episode has no outcome then.

    Args:
        writable: False for a file that other machines may be reading, too; nothing is counted then.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, *, writable: bool = True) -> None:
        self.path, self._db, self._writable = path, connection, writable
        self._lock = threading.RLock()
        self._counted: Counter[tuple[str, str]] = Counter()

    @property
    def purpose(self) -> Purpose:
        with self._using():
            return self._db.execute("SELECT name FROM purpose").fetchone()[0]

    def get(self, key: Key) -> list[Result] | None:
        """The recorded results; None if there are none, [] if the engine had found nothing."""
        with self._using():
            return self._get(key)

    def put(self, key: Key, results: Sequence[Result]) -> list[Result]:
        """Records an answer, unless there is one already. Returns the recorded one, durably written."""
        with self._using(), self._transaction():
            self._insert(key, results)
            return self._get(key)

    def merge(self, answers: Sequence[tuple[Key, Sequence[Result]]]) -> tuple[int, list[Key]]:
        """Records many answers at once. Returns how many were new, and the keys with another answer, which stays."""
        new, conflicts = 0, []
        with self._using(), self._transaction():
            for key, results in answers:
                if self._insert(key, results):
                    new += 1
                elif self._get(key) != list(results):
                    conflicts.append(key)
        return new, conflicts

    def count(self, backend: str, event: Literal["hit", "miss", "sent"], n: int = 1) -> None:
        """Adds to a counter, which reaches the disk with the next answer, at `close`, or after many more.

        A killed process loses at most that much of the counting.
        """
        with self._lock:
            self._counted[backend, event] += n
            due = self._counted.total() >= _FLUSH_EVERY
        if due:
            self._flush()

    def answers(self) -> Iterator[tuple[Key, list[Result]]]:
        """All of them, in the order of their keys."""
        order = "backend, query, k, language"
        with self._using():
            for *key, results in self._db.execute(f"SELECT {order}, results FROM answers ORDER BY {order}"):
                yield Key(*key), _decode(results)

    def statistics(self) -> dict[str, dict[str, int]]:
        """Backend -> {"rows", "hit", "miss", "sent"}: what is stored and what was counted."""
        with self._using():
            counts = self._db.execute("SELECT backend, event, n FROM counts").fetchall()
            sizes = self._db.execute("SELECT backend, 'rows', count(*) FROM answers GROUP BY backend").fetchall()
        found: dict[str, dict[str, int]] = {}
        for backend, event, n in [*sizes, *counts]:
            found.setdefault(backend, dict.fromkeys(("rows", "hit", "miss", "sent"), 0))[event] = n
        return dict(sorted(found.items()))

    def close(self) -> None:
        self._flush()
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _get(self, key: Key) -> list[Result] | None:
        where = "backend = ? AND query = ? AND k = ? AND language = ?"
        row = self._db.execute(f"SELECT results FROM answers WHERE {where}", astuple(key)).fetchone()
        return None if row is None else _decode(row[0])

    def _insert(self, key: Key, results: Sequence[Result]) -> bool:
        row = (*astuple(key), _encode(results))
        return self._db.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?)", row).rowcount == 1

    def _flush(self) -> None:
        if not self._writable or not self._counted:
            return
        try:
            with self._using(), self._transaction():
                pass
        except SearchError as problem:  # counting is no reason to lose an episode
            log.warning("%s; hits and misses are counted later", problem)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Waits for other writers first, so that it cannot fail halfway, and takes the counts along."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            add = "INSERT INTO counts VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n"
            self._db.executemany(add, [(*key, n) for key, n in self._counted.items()])
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._counted.clear()

    @contextmanager
    def _using(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except (sqlite3.Error, OSError) as problem:
            raise SearchError(f"search cache {self.path}: {problem}") from problem


def record_into(path: Path, purpose: Purpose, *, any_purpose: bool = False) -> Store:
    """Opens a cache to read and write, and makes it if it is not there.

    Raises:
        ScoreError: it is no cache, it was recorded for the other purpose (unless `any_purpose`), or it is not on a
            local disk.
    """
    if kind := network_file_system(path):
        raise ScoreError(
            f"{path}: a cache that is recorded into needs a local disk, and this is {kind}; let search.cache name a "
            "folder on the node's own disk, and join the nodes' files with `python -m score.search import`"
        )
    if not path.exists():
        _create(path, purpose)
    return _checked(Store(path, _connect(path)), purpose, any_purpose)


def replay_from(path: Path, purpose: Purpose | None = None, *, any_purpose: bool = False) -> Store:
    """Opens a cache that is there to answer from, on any file system. Raises `ScoreError` as `record_into`."""
    if not path.exists():
        raise ScoreError(f"{path}: no such search cache; record one first (search.mode: record)")
    if network_file_system(path) or not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        log_file = path.with_name(f"{path.name}-wal")
        if log_file.exists() and log_file.stat().st_size:
            raise ScoreError(f"{path}: a job still records into this cache, or was killed; export it where that ran")
        store = Store(path, _connect(path, "?mode=ro&immutable=1"), writable=False)
    else:
        store = Store(path, _connect(path, "?mode=rw"))
    return _checked(store, purpose or store.purpose, any_purpose)


def network_file_system(path: Path) -> str | None:
    """The type of the file system below `path` if several machines can share it; None for a local or unknown one."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    place = path.absolute()
    place = next(folder for folder in (place, *place.parents) if folder.exists()).resolve()
    kinds = {Path(line.split(" ")[1].replace("\\040", " ")): line.split(" ")[2] for line in mounts}
    kind = next((kinds[folder] for folder in (place, *place.parents) if folder in kinds), "")
    return kind if kind in _NETWORK else None


def _create(path: Path, purpose: Purpose) -> None:
    """Makes an empty cache that appears whole: of processes that start together, one wins and all use its file."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(temporary)) as db:
            db.executescript(_SCHEMA)
            db.execute("INSERT INTO purpose VALUES (?)", (purpose,))
            db.commit()
        with suppress(FileExistsError):
            os.link(temporary, path)
    except (OSError, sqlite3.Error) as problem:
        raise ScoreError(f"{path}: cannot make a search cache there ({problem})") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def _connect(path: Path, options: str = "?mode=rw") -> sqlite3.Connection:
    try:
        db = sqlite3.connect(
            path.absolute().as_uri() + options, uri=True, timeout=_WAIT_S, isolation_level=None, check_same_thread=False
        )
        found = [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    except sqlite3.Error as problem:
        raise ScoreError(f"{path}: cannot be opened as a search cache ({problem})") from None
    if found != [_APPLICATION_ID, _VERSION]:
        db.close()
        raise ScoreError(f"{path}: not a search cache of this version; name another file, or move this one away")
    return db


def _checked(store: Store, purpose: Purpose, any_purpose: bool) -> Store:
    recorded = store.purpose
    if recorded != purpose and not any_purpose:
        store.close()
        raise ScoreError(
            f"{store.path}: this search cache was recorded to {recorded}, not to {purpose}; give each its own file, "
            "or allow one for both (search.share_cache: true, or --share)"
        )
    return store


def _encode(results: Sequence[Result]) -> str:
    return json.dumps([astuple(result) for result in results])


def _decode(text: str) -> list[Result]:
    return [Result(*row) for row in json.loads(text)]
