"""Search caches by hand: carry answers from one machine to another, and see what was asked.

    python -m score.search export --cache cache/search/train.sqlite --out train.jsonl
    python -m score.search import --cache cache/search/train.sqlite node1.jsonl node2.jsonl
    python -m score.search stats --cache cache/search/train.sqlite --price serper=PRICE

A row of an export is one answer: purpose, backend, query, k, language, and results (title, snippet, url). An import
adds what is missing, so it may be repeated; of two different answers to one query the first stays, and the other is
reported. A price is for a thousand requests, in any currency; requests that had to be repeated count each time.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from score import cli
from score.errors import ScoreError
from score.jsonl import Row, numbered_rows, write_rows
from score.search.base import Result
from score.search.store import Key, Purpose, record_into, replay_from

log = logging.getLogger("search")

_PURPOSES = get_args(Purpose)
_FIELDS = {"backend": str, "query": str, "k": int, "language": str, "results": list}


def export(cache: Path, out: Path) -> None:
    with replay_from(cache) as store:
        purpose = store.purpose
        rows = (
            {"purpose": purpose, **asdict(key), "results": [asdict(result) for result in results]}
            for key, results in store.answers()
        )
        write_rows(out, rows)
    log.info("all answers of %s in %s", cache, out)


def import_(cache: Path, files: Sequence[Path], *, share: bool = False) -> None:
    """Adds exported answers. Every file is read before anything is written."""
    found = [(path, *_parse(row, f"{path}:{number}")) for path in files for number, row in numbered_rows(path)]
    if not found:
        log.info("nothing to import")
        return
    purposes = sorted({purpose for _, purpose, _, _ in found})
    if len(purposes) > 1 and not share:
        raise ScoreError(f"{files[0]}: answers for both train and test; import them into two caches, or use --share")
    with record_into(cache, purposes[0], any_purpose=share) as store:
        for path in files:
            answers = [(key, results) for file, _, key, results in found if file == path]
            new, conflicts = store.merge(answers)
            for key in conflicts:
                log.warning("%s: another answer to %s is recorded already and stays", path, key)
            log.info("%s: %d answers, %d new, %d conflicts", path, len(answers), new, len(conflicts))


def statistics(cache: Path, prices: dict[str, float]) -> str:
    """A table of backends; cost is "-" where no price was given."""
    with replay_from(cache) as store:
        purpose, found = store.purpose, store.statistics()
    unknown = set(prices) - {backend.split()[0] for backend in found}
    if unknown:
        raise ScoreError(f"--price: this cache has no backend {', '.join(sorted(unknown))}")
    table = [("backend", "rows", "hits", "misses", "requests", "cost")]
    for backend, n in found.items():
        per_thousand = prices.get(backend.split()[0])
        cost = "-" if per_thousand is None else f"{n['sent'] * per_thousand / 1000:.4f}"
        table.append((backend, *(str(n[name]) for name in ("rows", "hit", "miss", "sent")), cost))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [f"{row[0]:<{widths[0]}}" + "".join(f"{c:>{w + 2}}" for c, w in zip(row[1:], widths[1:], strict=True))
             for row in table]  # fmt: skip
    return "\n".join([f"purpose: {purpose}", *lines])


def _parse(row: Row, place: str) -> tuple[str, Key, list[Result]]:
    for name, kind in _FIELDS.items():
        if not isinstance(row.get(name), kind) or isinstance(row[name], bool):
            raise ScoreError(f"{place}: an exported answer has {name!r} as a {kind.__name__}")
    if row.get("purpose") not in _PURPOSES:
        raise ScoreError(f"{place}: an exported answer has a purpose, train or test")
    key = Key(row["backend"], row["query"], row["k"], row["language"])
    return row["purpose"], key, [_result(result, place) for result in row["results"]]


def _result(found: Any, place: str) -> Result:
    try:
        result = Result(**found)
    except TypeError:
        raise ScoreError(f"{place}: a result has a title, a snippet and a url") from None
    if not all(isinstance(text, str) for text in asdict(result).values()):
        raise ScoreError(f"{place}: title, snippet and url of a result are texts")
    return result


def price(text: str) -> tuple[str, float]:
    """A pair from a text such as serper=2.5. Raises ValueError, which argparse words."""
    backend, _, per_thousand = text.partition("=")
    if not 0 <= float(per_thousand) < math.inf:
        raise ValueError
    return backend, float(per_thousand)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    exporting = commands.add_parser("export", help="write all answers as JSON Lines")
    importing = commands.add_parser("import", help="add answers from JSON Lines")
    counting = commands.add_parser("stats", help="show rows, hits, misses, requests and cost")
    for command in (exporting, importing, counting):
        command.add_argument("--cache", type=Path, required=True)
    exporting.add_argument("--out", type=Path, required=True)
    importing.add_argument("files", type=Path, nargs="+", metavar="FILE")
    importing.add_argument("--share", action="store_true", help="one cache for train and test, on purpose")
    counting.add_argument("--price", type=price, action="append", default=[], metavar="BACKEND=PER_THOUSAND")
    args = parser.parse_args(argv)
    if args.command == "export":
        export(args.cache, args.out)
    elif args.command == "import":
        import_(args.cache, args.files, share=args.share)
    else:
        sys.stdout.write(statistics(args.cache, dict(args.price)) + "\n")


if __name__ == "__main__":
    cli.run(main)
