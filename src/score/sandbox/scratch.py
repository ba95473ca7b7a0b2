"""What a session's working folder holds: whether it is too much, how it is kept before a step and put back later.

The folder is the model's: nothing in it is followed or trusted, and names are only ever resolved against open folders.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

MOST_KEPT = 64 << 20
"""Bytes of all contents that one session's snapshots keep together; a step above that is not kept."""
MOST_ENTRIES, MOST_DEPTH, MOST_BYTES = 1000, 16, 256 << 20
"""What a folder may hold: things, folders inside each other, bytes on disk."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class TooMuch(Exception):
    """The folder holds more than it may or more than is kept, or changes while it is read; the text says which."""


@dataclass(frozen=True)
class Entry:
    """One thing in a folder: a "folder", "file", "link" or "pipe". `content`: a file's bytes or a link's target."""

    path: str
    kind: str
    mode: int
    content: bytes | str = b""


@dataclass(frozen=True)
class _Found:
    path: str
    name: str
    handle: int  # of the open folder that it is in
    status: os.stat_result


def check(folder: str) -> None:
    """Raises `TooMuch`, with words for the model, if a folder holds more than it may. It may change meanwhile."""
    size = 0
    for found in _walk(folder):
        size += 512 * found.status.st_blocks
        if size > MOST_BYTES:
            raise TooMuch(f"more than {MOST_BYTES >> 20} MiB of files")


def keep(folder: str, room: int = MOST_KEPT) -> tuple[Entry, ...]:
    """Everything below a folder, folders before what they hold. Raises `TooMuch` if contents are above `room` bytes."""
    entries: list[Entry] = []
    try:
        for found in _walk(folder):
            entry = _entry(found, room)
            room -= len(entry.content)
            entries.append(entry)
    except OSError as problem:
        raise TooMuch(str(problem)) from problem
    return tuple(entries)


def put_back(folder: str, entries: tuple[Entry, ...]) -> None:
    """Makes a folder hold exactly these entries.

    Raises `OSError` if a process at work in it is in the way, which never leads outside of the folder.
    """
    clear(folder)
    top = os.open(folder, _FOLDER)
    try:
        for entry in entries:
            with _opened(top, os.path.dirname(entry.path)) as handle:
                _make(entry, os.path.basename(entry.path), handle)
        for entry in reversed(entries):
            if entry.kind == "folder":  # afterwards, since a folder may have been made read-only
                with _opened(top, entry.path) as handle:
                    os.fchmod(handle, entry.mode)
    finally:
        os.close(top)


@contextlib.contextmanager
def _opened(top: int, path: str) -> Iterator[int]:
    """A folder below an open one, by way of no link."""
    handle = os.dup(top)
    try:
        for name in filter(None, path.split("/")):
            below = os.open(name, _FOLDER, dir_fd=handle)
            os.close(handle)
            handle = below
        yield handle
    finally:
        os.close(handle)


def _make(entry: Entry, name: str, handle: int) -> None:
    match entry.kind:
        case "folder":
            os.mkdir(name, 0o700, dir_fd=handle)
        case "link":
            os.symlink(entry.content, name, dir_fd=handle)
        case "pipe":
            os.mkfifo(name, entry.mode, dir_fd=handle)
        case "file":
            new = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with open(os.open(name, new, 0o600, dir_fd=handle), "wb") as file:
                file.write(entry.content)
                os.fchmod(file.fileno(), entry.mode)


def clear(folder: str) -> None:
    """Empties a folder, however deep it is and whatever modes its folders have. No process may be at work in it.

    Folders inside folders are moved up, so that neither descriptors nor the stack limit the depth.
    """
    top = os.open(folder, _FOLDER)
    try:
        while names := os.listdir(top):
            for name in names:
                if not _unlinked(name, top):
                    _flatten(name, top)
    finally:
        os.close(top)


def _flatten(name: str, top: int) -> None:
    """Removes a folder of `top`; the folders in it move up to `top`."""
    below = _open_owned(name, top)
    try:
        for child in os.listdir(below):
            if not _unlinked(child, below):
                os.close(_open_owned(child, below))  # a folder moves only if it can be written
                os.rename(child, f".{os.urandom(8).hex()}", src_dir_fd=below, dst_dir_fd=top)
    finally:
        os.close(below)
    os.rmdir(name, dir_fd=top)


def _open_owned(name: str, handle: int) -> int:
    """Opens a folder whose owner may have been denied it."""
    path = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
    try:
        os.chmod(f"/proc/self/fd/{path}", 0o700)
        return os.open(name, _FOLDER, dir_fd=handle)
    finally:
        os.close(path)


def _unlinked(name: str, handle: int) -> bool:
    """Removes what is not a folder; False if it is one."""
    if stat.S_ISDIR(os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode):
        return False
    os.unlink(name, dir_fd=handle)
    return True


def _walk(folder: str) -> Iterator[_Found]:
    """Everything below a folder, folders before what they hold. Raises `TooMuch`."""
    if not any(os.scandir(folder)):
        return
    top = os.open(folder, _FOLDER)
    try:
        for number, found in enumerate(_below(top, "", 0)):
            if number == MOST_ENTRIES:
                raise TooMuch(f"more than {MOST_ENTRIES} files and folders")
            yield found
    finally:
        os.close(top)


def _below(handle: int, path: str, depth: int) -> Iterator[_Found]:
    if depth > MOST_DEPTH:
        raise TooMuch(f"folders nested more than {MOST_DEPTH} deep")
    with os.scandir(handle) as children:
        names = sorted(child.name for child in islice(children, MOST_ENTRIES + 1))
    for name in names:
        try:
            status = os.stat(name, dir_fd=handle, follow_symlinks=False)
        except FileNotFoundError:
            continue  # gone since the listing
        yield _Found(path + name, name, handle, status)
        if stat.S_ISDIR(status.st_mode):
            if status.st_mode & 0o500 != 0o500:  # its contents would be out of sight for an ordinary user
                raise TooMuch("a folder that its owner may not read")
            try:
                below = os.open(name, _FOLDER, dir_fd=handle)
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                yield from _below(below, f"{path}{name}/", depth + 1)
            finally:
                os.close(below)


def _entry(found: _Found, room: int) -> Entry:
    path, name, handle, mode = found.path, found.name, found.handle, stat.S_IMODE(found.status.st_mode)
    if stat.S_ISDIR(found.status.st_mode):
        return Entry(path, "folder", mode)
    if stat.S_ISLNK(found.status.st_mode):
        return Entry(path, "link", mode, os.readlink(name, dir_fd=handle))
    if stat.S_ISFIFO(found.status.st_mode):
        return Entry(path, "pipe", mode)
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=handle)
    with open(descriptor, "rb") as file:
        content = file.read(room + 1)
    if len(content) > room:
        raise TooMuch(f"more than {MOST_KEPT >> 20} MiB to keep")
    return Entry(path, "file", mode, content)
