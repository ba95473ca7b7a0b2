"""A stage split into N jobs: which rows are whose, and how the parts become one result again.

Shard i of N takes every N-th row from the i-th on, so that parts are equally long and equally hard. What a row gets
does not depend on the shard it is in: seeds derive from the task (`score.records.derive_seed`).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from score.errors import ScoreError

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Part `number` (from 1) of `count`; written "2-of-8", as Snakemake writes its scatter items."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, word: str) -> Self:
        """Raises `ScoreError` on anything else than "I-of-N" with 1 <= I <= N."""
        match = re.fullmatch(r"(\d+)-of-(\d+)", word)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise ScoreError(f"shard {word!r}: expected I-of-N with I from 1 to N, such as 2-of-8")
        return cls(int(match[1]), int(match[2]))

    def take(self, rows: Sequence[T]) -> list[T]:
        """This shard's rows, in order."""
        return list(rows[self.number - 1 :: self.count])

    def __str__(self) -> str:
        return f"{self.number}-of-{self.count}"


WHOLE = Shard()


def join(parts: Sequence[Sequence[T]]) -> list[T]:
    """The rows of all shards, 1 to N, in the order that they had before they were dealt out.

    Raises `ScoreError` if the parts cannot be shards of one list.
    """
    count, total = len(parts), sum(map(len, parts))
    for number, part in enumerate(parts, start=1):
        expected = len(range(number - 1, total, count))
        if len(part) != expected:
            raise ScoreError(f"shard {number}-of-{count} has {len(part)} rows, not {expected}; remove it to redo it")
    return [parts[i % count][i // count] for i in range(total)]


def merge(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One provenance record for all shards: what they agree on as it is, and every value of what they do not."""
    merged: dict[str, Any] = {}
    for key in dict.fromkeys(key for record in records for key in record):
        values = []
        for record in records:
            if record.get(key) not in values:
                values.append(record.get(key))
        merged[key] = values[0] if len(values) == 1 else values
    return merged | {"shards": len(records)}


def argument(parser: argparse.ArgumentParser) -> None:
    """The option that makes a stage do one shard of its rows."""
    parser.add_argument("--shard", type=Shard.parse, default=WHOLE, metavar="I-of-N", help="do every N-th row only")
