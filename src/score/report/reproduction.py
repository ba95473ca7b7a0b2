"""docs/REPRODUCTION.md: every claim of the paper that is a number, ours or "not run" beside it, known differences.

    python -m score.report.reproduction --agents AGENTS.json --scores eval/*/*/*.score.json \
        --figures figures/figure3a.csv figures/figure3b.csv --out docs/REPRODUCTION.md

`claims.yaml` beside this file lists the claims and the differences.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from score import cli
from score.evaluate.score import read_scores
from score.jsonl import write_text
from score.report import cells, contamination, reported, text
from score.report.stats import Interval
from score.report.tables import Row, Table, beside_paper, read_rows

_FILE = Path(__file__).with_name("claims.yaml")
_NUMBERS = {"main": 1, "deep": 2}
"""Part -> a table that has its columns."""

HEAD = """# Reproduction

Each claim of the paper (arXiv 2509.14257, second version) that is a number, and what came out here. Differences are of
averages over the same questions, in points, with 95 % intervals from a paired bootstrap over questions; they do not
contain the variance between training runs. *not run* stands where there are no scores yet: the command makes them.
Numbers of the generated micro-world never appear here. This file is generated (`python -m score.report.reproduction`),
from `src/score/report/claims.yaml` and score files.
"""
Shares = Mapping[tuple[str, str, str], tuple[Interval, bool]]
"""(part, two words of `left`) -> a share that a figure shows, and whether nothing is missing behind it."""


@dataclass(frozen=True)
class Claim:
    """A number of the paper: the average of a row, its difference from another, or a share in a figure.

    Rows are (student, method); the shares of figure 3a (group, corrections).
    """

    text: str
    where: str
    part: str
    left: tuple[str, str]
    right: tuple[str, str] | None
    value: float
    command: str


@cache
def _content() -> Mapping[str, Any]:
    return yaml.safe_load(_FILE.read_text(encoding="utf-8"))


def claims() -> list[Claim]:
    """The paper's claims, in its order."""
    return [
        Claim(**entry | {"left": tuple(entry["left"]), "right": tuple(entry["right"]) if "right" in entry else None})
        for entry in _content()["claims"]
    ]


def differences() -> list[str]:
    """What is done otherwise here, a sentence each."""
    return list(_content()["differences"])


def ours(claim: Claim, tables: Mapping[str, Table], shares: Shares) -> str:
    """What came out here: the average, share or difference with its interval, or "not run"."""
    if claim.part not in tables:
        share, complete = shares.get((claim.part, *claim.left), (None, True))
        return _shown(share, "{:.1f} [{:.1f}, {:.1f}]" + ("" if complete else "*"))
    found = [_cells(key, tables[claim.part]) for key in (claim.left, claim.right) if key]
    if any(row is None for row in found):
        return reported.NOT_RUN
    mark = "" if all(cell.complete for row in found for cell in row) else "*"
    if claim.right is None:
        return _shown(cells.average(found[0])[0], "{:.1f} [{:.1f}, {:.1f}]" + mark)
    gap = cells.difference(*found)
    return _shown(gap and gap.interval, "{:+.1f} [{:+.1f}, {:+.1f}]" + mark)


def _shown(interval: Interval | None, form: str) -> str:
    if interval is None:
        return reported.NOT_RUN
    return form.format(*(100 * x for x in (interval.mean, interval.low, interval.high)))


def _cells(key: tuple[str, str], table: Table) -> list[cells.Cell] | None:
    """The cells of a row; None unless all its columns have scores."""
    row = next((row for row in table.rows if (row.student, row.reported) == key), None)
    of_row = table.of(row) if row else [None]
    return None if None in of_row else of_row


def read_figures(paths: Sequence[Path], rows: Sequence[Row]) -> Shares:
    """The shares of figure3a.csv and figure3b.csv. Those of the paper, which may stand there too, have no interval."""
    methods = {row.name: (row.student, row.reported or "") for row in rows}
    shares = {}
    for path in paths:
        for line in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
            if line["low"]:
                words = (line["group"], line["corrections"]) if "group" in line else methods[line["agent"]]
                mean = line["share"] if "group" in line else line["mean"]
                interval = Interval(*map(float, (mean, line["low"], line["high"])))
                shares[path.stem, *words] = interval, line.get("complete", "True") == "True"
    return shares


def report(rows: Sequence[Row], scored: cells.Cells, shares: Shares, *notes: str) -> str:
    """The document in Markdown; `notes` stand below the claims."""
    tables = {part: beside_paper(rows, scored, number) for part, number in _NUMBERS.items()}
    lines = [
        [str(i), claim.text, claim.where, f"`{claim.command}`", _paper(claim), ours(claim, tables, shares)]
        for i, claim in enumerate(claims(), 1)
    ]
    grid = text.Grid(["", "claim", "where", "command", "paper", "ours"], lines, words=4)
    numbered = "\n".join(f"{i}. {sentence}" for i, sentence in enumerate(differences(), 1))
    return "\n".join([
        HEAD, text.markdown(grid), "",
        "Commands are targets: `snakemake --profile slurm table1`. \\* questions without a score are left out.", "",
        *(line for note in notes for line in (note, "")),
        "## Known differences", "", numbered, "",
        "[HAZARDS.md](HAZARDS.md) has the places in the published code, and the test or choice that answers each.", "",
    ])  # fmt: skip


def _paper(claim: Claim) -> str:
    return f"{claim.value:.1f}" if claim.right is None else f"{claim.value:+.1f}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write the paper's claims beside what came out here.")
    parser.add_argument("--agents", required=True, type=Path)
    parser.add_argument("--scores", required=True, type=Path, nargs="*")
    parser.add_argument("--figures", type=Path, nargs="*", default=[], help="figure3a.csv, figure3b.csv")
    parser.add_argument(
        "--contamination", type=Path, nargs="*", default=[], help="data/contamination.json, to count it"
    )
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args(argv)
    rows = read_rows(args.agents)
    scored = cells.pool(map(read_scores, args.scores))
    notes = map(contamination.sentence, args.contamination)
    write_text(args.out, report(rows, scored, read_figures(args.figures, rows), *notes))


if __name__ == "__main__":
    cli.run(main)
