"""What every command line of the package shares: errors in one line, logging to stderr."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from score.errors import ScoreError


def run(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> None:
    """Calls `main`; a `ScoreError` becomes one line on stderr and exit code 1."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    for chatty in ("httpx", "httpx2", "openai", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `with` blocks end the servers they started
    try:
        main(argv)
    except ScoreError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def stage_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that every stage takes: what to do (config, agent, seed) and where (root, work)."""
    parser.add_argument("--config", type=Path, required=True, help="the resolved config")
    parser.add_argument("--agent", required=True, help="name of an entry of `agents`")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--root", type=Path, required=True, help="the experiment's results folder")
    parser.add_argument("--work", type=Path, required=True, help="folder for what a killed job leaves to its successor")
