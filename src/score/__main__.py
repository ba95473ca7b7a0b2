"""`python -m score COMMAND`, or `score COMMAND` where the package is installed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from score import cli

COMMANDS = {"doctor": "score.cluster.doctor", "plan": "score.plan.__main__", "serve": "score.engine.shared"}
"""Command -> module; the rest of the command line is its `main`'s."""


def main(argv: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] not in COMMANDS:
        sys.exit(f"usage: score COMMAND ...; commands: {', '.join(COMMANDS)}")
    cli.run(import_module(COMMANDS[words[0]]).main, words[1:], watched=False)


if __name__ == "__main__":
    main()
