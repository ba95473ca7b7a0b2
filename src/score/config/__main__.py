"""Prints, or writes, the resolved config: `python -m score.config --config config.yaml --overlay
configs/micro.yaml`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import yaml

from score import cli
from score.config.load import read_merged
from score.config.schema import Config


def dump(config: Config) -> str:
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--overlay", type=Path, action="append", default=[])
    args = parser.parse_args(argv)
    os.write(1, dump(read_merged([args.config, *args.overlay])).encode())


if __name__ == "__main__":
    cli.run(main)
