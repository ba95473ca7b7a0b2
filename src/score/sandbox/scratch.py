"""What a session's working folder holds, taken before a step and put back when the session returns to it.

The folder is the model's: nothing in it is followed or trusted, and names are only ever resolved against open folders.
"""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

MOST_BYTES = 64 << 20
"""Content above which a folder is not kept."""


class TooMuch(Exception):
    """The folder holds more than is kept, or changes while it is read."""


@dataclass(frozen=True)
class Entry:
    """One thing in a folder: a "folder", "file", "link" or "pipe". `content`: a file's bytes or a link's target."""

    path: str
    kind: str
    mode: int
    content: bytes | str = b""


def keep(folder: str) -> tuple[Entry, ...]:
    """Everything below a folder, folders before what they hold. Raises `TooMuch`."""
    if not any(os.scandir(folder)):
        return ()
    entries: list[Entry] = []
    size = 0
    try:
        for path, folders, files, handle in os.fwalk(folder, follow_symlinks=False):
            for name in (*folders, *files):
                entry = _entry(os.path.relpath(os.path.join(path, name), folder), name, handle, MOST_BYTES - size)
                size += len(entry.content)
                entries.append(entry)
    except OSError as problem:
        raise TooMuch(str(problem)) from problem
    return tuple(entries)


def _entry(path: str, name: str, handle: int, room: int) -> Entry:
    status = os.stat(name, dir_fd=handle, follow_symlinks=False)
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISDIR(status.st_mode):
        return Entry(path, "folder", mode)
    if stat.S_ISLNK(status.st_mode):
        return Entry(path, "link", mode, os.readlink(name, dir_fd=handle))
    if stat.S_ISFIFO(status.st_mode):
        return Entry(path, "pipe", mode)
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=handle)
    with open(descriptor, "rb") as file:
        content = file.read(room + 1)
    if len(content) > room:
        raise TooMuch(f"more than {MOST_BYTES >> 20} MiB in the working folder")
    return Entry(path, "file", mode, content)


def put_back(folder: str, entries: tuple[Entry, ...]) -> None:
    """Makes a folder hold exactly these entries. No process may be at work in it."""
    for child in os.scandir(folder):
        if child.is_dir(follow_symlinks=False):
            shutil.rmtree(child.path, ignore_errors=True)
        else:
            os.unlink(child.path)
    for entry in entries:
        path = Path(folder, entry.path)
        match entry.kind:
            case "folder":
                path.mkdir()
            case "link":
                path.symlink_to(entry.content)
            case "pipe":
                os.mkfifo(path, entry.mode)
            case "file":
                path.write_bytes(entry.content)
                path.chmod(entry.mode)
    for entry in reversed(entries):
        if entry.kind == "folder":  # afterwards, since a folder may have been made read-only
            Path(folder, entry.path).chmod(entry.mode)
