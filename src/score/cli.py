"""What every command line of the package shares: errors in one line, logging, and an end that leaves nothing behind."""

from __future__ import annotations

import argparse
import errno
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from score import watch
from score.errors import InfrastructureError, ScoreError
from score.signals import exit_on_sigterm

_CHATTY = ("httpx", "httpx2", "openai", "httpcore", "bm25s")


def run(
    main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None, *, watched: bool = True
) -> None:
    """Calls `main`; what a user or an operator can mend becomes one line on stderr and exit code 1.

    Args:
        watched: it may be a job of a workflow, and ends when that is gone.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    exit_on_sigterm()
    if watched:
        watch.end_with_the_workflow()
    code = 0
    try:
        _name_disk_errors(main, argv)
    except* (ScoreError, InfrastructureError) as group:  # a group where concurrent tasks failed
        for error in dict.fromkeys(map(str, _leaves(group))):
            print(f"error: {error}", file=sys.stderr)
        code = 1
    except* KeyboardInterrupt:  # Snakemake's way to end its jobs, and a keyboard's
        print("error: interrupted; what is done is kept, start again", file=sys.stderr)
        code = 130
    if code:
        sys.exit(code)


_DISK = {
    errno.ENOSPC: "no space left on the disk: make room",
    errno.EDQUOT: "your quota of disk space is used up: make room",
    errno.EROFS: "the file system is mounted read-only: have it mended",
    errno.EACCES: "no permission: change the owner or the mode",
    errno.EIO: "the disk fails to read or write: have it mended",
    errno.ESTALE: "the network file system lost this file: have it mounted anew",
}
"""What becomes of a disk, and the mend."""


def _name_disk_errors(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None) -> None:
    try:
        main(argv)
    except OSError as error:
        if error.errno not in _DISK:
            raise
        place = error.filename or "a file"
        raise InfrastructureError(f"{place}: {_DISK[error.errno]}; what is done is kept, start again") from error


def _leaves(error: BaseException) -> list[BaseException]:
    """The single exceptions of a group."""
    return [leaf for e in error.exceptions for leaf in _leaves(e)] if isinstance(error, BaseExceptionGroup) else [error]


def stage_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that every stage takes: what to do (config, agent, seed) and where (root, work)."""
    parser.add_argument("--config", type=Path, required=True, help="the resolved config")
    parser.add_argument("--agent", required=True, help="name of an entry of `agents`")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--root", type=Path, required=True, help="the experiment's results folder")
    parser.add_argument("--work", type=Path, required=True, help="folder for what a killed job leaves to its successor")


def held_out_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of a stage that may look at held-out questions (`score.data.splits.held_out_of`)."""
    parser.add_argument("--tasks", type=Path, nargs="*", default=[], help="training questions, for the held-out ones")
    parser.add_argument("--splits", type=Path, nargs="?", help="which of them are held out")


def held_out_files(args: argparse.Namespace) -> list[Path]:
    """The files behind `held_out_arguments`, which a run that looks at them is made from as well."""
    return [*args.tasks, *([args.splits] if args.splits else [])]
