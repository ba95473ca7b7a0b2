"""JSON Lines on disk: whole files that appear at once, and work files that survive a kill at any byte.

A finished file is written under a temporary name in the same folder, synced and renamed: nobody ever reads half of it.
A stage that runs for hours appends to a `ResumableRows` instead and calls `finish` at the end.
Not here: what the rows mean (`score.records`).
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pydantic_core import from_json

from score.errors import ScoreError

log = logging.getLogger(__name__)

Row = dict[str, Any]

NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
"""What `flock` fails with on a file system without locks."""


def numbered_rows(path: Path | str) -> Iterator[tuple[int, Row]]:
    """Yields (line number, object) of every line that is not blank, counting from 1.

    Raises `ScoreError` with file:line on a line that is not a JSON object.
    """
    for number, line in numbered_lines(path):
        yield number, _parse(line, f"{path}:{number}")


def numbered_lines(path: Path | str) -> Iterator[tuple[int, bytes]]:
    """Yields (line number, bytes) of every line that is not blank, counting from 1."""
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise ScoreError(f"{path}: cannot be read ({error.strerror})") from None


def read_rows(path: Path | str) -> list[Row]:
    """All objects of a `.jsonl` file; errors as in `numbered_rows`."""
    return [row for _, row in numbered_rows(path)]


def write_rows(path: Path | str, rows: Iterable[Row]) -> None:
    """Writes a whole `.jsonl` file; it appears complete or not at all. Creates missing folders."""
    with replaced_file(path) as file:
        for row in rows:
            file.write(_line(row))


def write_text(path: Path | str, text: str) -> None:
    """Writes a whole UTF-8 text file; it appears complete or not at all."""
    with replaced_file(path) as file:
        file.write(text.encode())


def write_json(path: Path | str, value: Any) -> None:
    """Writes one JSON value, indented for people."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


@contextmanager
def replaced_file(path: Path | str) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends well, and leaves no trace when it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: its files are private to the user (mode 600), and results are shared with a group.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


class ResumableRows:
    """An append-only work file of rows with a "key"; what was appended before a kill is in `done` when it is reopened.

    A later row of a key replaces the earlier one (an infrastructure error that is tried again). Only the last line can
    be torn; it is dropped. One process at a time: opening a file that another one holds raises `ScoreError`.

        with ResumableRows("work/rollout.jsonl") as rows:
            for task in tasks:
                if task.id not in rows.done:
                    rows.append(task.id, solve(task))
            rows.finish("rollout.jsonl", [rows.done[task.id] for task in tasks])
    """

    def __init__(self, path: Path | str, *, earlier: Iterable[Path] = (), sync_seconds: float = 1.0):
        """Opens or creates `path`. A row is in the kernel's hands at once; appending syncs every `sync_seconds`.

        Args:
            earlier: work files whose rows count as done too. They are read, not written.
        """
        self.path = Path(path)
        self.done: dict[str, Row] = {}
        self._sync_seconds = sync_seconds
        self._synced = time.monotonic()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "a+b")  # noqa: SIM115 - held until close()
        try:
            self._lock()
            for other in earlier:
                self._take(other, other.read_bytes())
            self._load()
        except BaseException:
            self._file.close()
            raise

    def append(self, key: str, row: Row) -> None:
        """Records `row` under `key`, which is stored in it as "key"."""
        row = {"key": key} | row | {"key": key}
        self._file.write(_line(row))
        self._file.flush()
        self.done[key] = row
        if time.monotonic() - self._synced >= self._sync_seconds:
            self._sync()

    def finish(self, output_path: Path | str, rows: Iterable[Row]) -> None:
        """Writes the finished file by atomic rename. The work file stays, so that a later run can add to it."""
        self._sync()
        write_rows(output_path, rows)

    def close(self) -> None:
        if not self._file.closed:
            self._sync()
            self._file.close()

    def __enter__(self) -> ResumableRows:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ScoreError(f"{self.path}: another job is writing this file; wait for it or cancel it") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            log.warning("%s: this file system has no locks; a second job on it would go unnoticed", self.path)

    def _load(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            log.warning("%s: dropping a torn last line of %d bytes", self.path, len(content) - len(whole))
            self._file.truncate(len(whole))
        self._take(self.path, whole)

    def _take(self, path: Path, content: bytes) -> None:
        """Counts the whole lines of a work file as done."""
        for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), start=1):
            row = _parse(line, f"{path}:{number}")
            if not isinstance(row.get("key"), str):
                raise ScoreError(f'{path}:{number}: a work file\'s rows need a "key"; this is not a work file')
            self.done[row["key"]] = row


def _line(row: Row) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate, which model code can print, has no UTF-8 form but has an escape
        return json.dumps(row, allow_nan=False).encode() + b"\n"


def _parse(line: bytes, place: str) -> Row:
    try:
        row = from_json(line)  # twice as fast as json
    except ValueError:
        try:
            row = json.loads(line)  # which takes lone surrogates, too, and says better what is wrong
        except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
            raise ScoreError(f"{place}: not valid JSON ({error})") from None
    if not isinstance(row, dict):
        raise ScoreError(f"{place}: expected a JSON object, found {type(row).__name__}")
    return row


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable; without it a power cut can undo it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
