"""Apptainer through spython: what an image says of itself, and builds by an ordinary user."""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from score.errors import ScoreError

LABEL = "org.score."
"""How the project's own labels begin."""
BUILDER = "score-build"
"""Who builds when root asks for it: a %post step fails under a root without all capabilities."""


def find() -> str | None:
    """Apptainer's path, or that of its forerunner; None where neither is on the PATH."""
    return shutil.which("apptainer") or shutil.which("singularity")


def program() -> str:
    """Apptainer's path. Raises `ScoreError` if it is not there."""
    found = find()
    if found is None:
        raise ScoreError("apptainer is not installed, or not on PATH (clusters often have it as a module)")
    return found


def labels(path: Path) -> dict[str, str]:
    """The project's own labels of an image. Raises `ScoreError` if it is none, or there is no Apptainer."""
    with tempfile.TemporaryDirectory() as folder, _client(Path(folder)) as client:
        try:
            said = client.inspect(str(path))
        except (ValueError, KeyError, TypeError):  # an answer that is no inspection
            said = {}
    if "attributes" not in said:
        raise ScoreError(f"{path}: Apptainer cannot read it as an image")
    everything = said["attributes"]["labels"]
    return {key.removeprefix(LABEL): value for key, value in everything.items() if key.startswith(LABEL)}


def builder() -> pwd.struct_passwd:
    """The user who builds: this one, or in root's place the one that is there for it."""
    if os.geteuid() == 0:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(BUILDER)
    return pwd.getpwuid(os.geteuid())


def build(folder: Path, definition: Path, image: str, options: Sequence[str], user: pwd.struct_passwd) -> bool:
    """Builds an image in a folder that has all that the build reads; returns whether it is there then.

    The folder is given to the user who builds: that user may be unable to read anything else of this one's.
    """
    if user.pw_uid != os.geteuid():
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid)

    def child() -> None:
        os.setsid()
        os.chdir(folder)
        os.environ.setdefault("APPTAINER_TMPDIR", str(folder))
        # For runs: in a build it would hide the image's users from %post, and apt could not become its own.
        os.environ.pop("APPTAINER_USERNS", None)
        if user.pw_uid != os.geteuid():
            os.initgroups(user.pw_name, user.pw_gid)
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
            os.environ.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name)
        # What Apptainer says goes to our own output at once: spython would hold it back until the end.
        with _client(folder, " 2>&1") as client:
            # force: else the labels of the image that this one is a layer on would stay.
            built = client.build(str(definition), image, sudo=False, force=True, options=list(options), quiet=True)
        sys.exit(0 if built else 1)

    process = get_context("fork").Process(target=child)
    process.start()
    try:
        process.join()
    finally:
        if process.is_alive():  # this process was told to end; Apptainer and what it started would go on alone
            os.killpg(process.pid, signal.SIGTERM)
    return process.exitcode == 0


@contextlib.contextmanager
def _client(folder: Path, redirection: str = "") -> Iterator[Any]:
    """spython's client. It calls a program named singularity, which not every Apptainer brings: one is made here."""
    command = f'exec {shlex.quote(program())} "$@"{redirection}'
    from spython.main import Client

    (folder / "singularity").write_text(f"#!/bin/sh\n{command}\n", encoding="utf-8")
    (folder / "singularity").chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{folder}{os.pathsep}{before}"
    try:
        yield Client
    finally:
        os.environ["PATH"] = before
