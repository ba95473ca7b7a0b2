"""Tables of results from score files: tidy CSV for computing, Markdown for reading, LaTeX for papers. Runs no model.

    python -m score.report.tables --table 1 --scores eval/*/*/*.score.json --agents agents.json --note "Micro-world." \
        --out-csv tables/table1.csv --out-md tables/table1.md --out-tex tables/table1.tex
    python -m score.report.tables --title Baselines --scores ... --agents agents.json --out-md tables/baselines.md
    python -m score.report.tables --headline --scores ... --agents agents.json [--out-md tables/headline.md]

`agents.json` lists the rows in order: {"name", "student", "method", "tables", "compare", "reported"}. Table 1
is mathematics and facts, table 2 deep search, table 3 the ablation on the columns of table 1. A table with a title of
its own has every agent and every benchmark that was scored. The headline is one line per agent over all groups, also
printed.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from score import cli
from score.data import benchmarks
from score.errors import ScoreError
from score.evaluate.score import Scores, read_scores
from score.jsonl import write_text
from score.report import contamination, reported, samples, text
from score.report.cells import Cell, Cells, average, best, difference, pool
from score.report.stats import Interval, holm
from score.report.text import Grid, marked

TITLES = {1: "Mathematics and factual questions", 2: "Deep search", 3: "Ablation"}
GROUPS = {1: ("math", "facts"), 2: ("deep",), 3: ("math", "facts")}
GROUP_LABELS = {"math": "math", "facts": "facts", "deep": "deep search"}

COLUMNS = (
    *("agent", "student", "method", "column", "mean", "low", "high", "interval", "n", "seeds", "complete"),
    *("reported", "difference"),
)

METHODS = (
    "Means in %. Averages: means of the columns, with a 95 % interval from a percentile bootstrap over questions "
    "within each column (10,000 resamples; the seeds of a question stay together), or Wilson's where nothing varies or "
    "there is one column. It covers questions only, not the variance between training runs: few seeds are few, "
    "whatever the interval. Bold: better than every other row of the same student that was run, each paired difference "
    "significant at 5 % after Holm's correction over those rows."
)
DIFFERENCES = (
    "Paired differences of the averages in points (same questions, 95 % interval; p after Holm's correction over the "
    "{n} of this table):"
)
INCOMPLETE = (
    "\\* incomplete: questions without a score (infrastructure errors, missing predictions or seeds, answers that wait "
    "for a judge) are left out of the mean, never counted as wrong. – not run."
)


@dataclass(frozen=True)
class Row:
    """One agent as a table shows it; `compare` names the agents that it is compared with, question by question.

    `reported` is the paper's row that it stands beside (`score.report.reported`).
    """

    name: str
    student: str
    method: str
    tables: tuple[int, ...]
    compare: tuple[str, ...] = ()
    reported: str | None = None


@dataclass(frozen=True)
class Table:
    """Rows and columns of one table, with the cells of all agents.

    `part` is the paper's that it is set beside, and `others` whether rows that only the paper has are shown as well.
    """

    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    cells: Cells
    part: str | None = None
    others: bool = False

    def of(self, row: Row, columns: Sequence[str] | None = None) -> list[Cell | None]:
        return [self.cells.get((row.name, column)) for column in columns or self.columns]

    def reported(self, row: Row) -> list[float | None]:
        """The paper's numbers of a row in %, the average last; None where there is none, or no paper to compare."""
        return reported.of_row(self.part or "", row.student, row.reported, (*self.columns, "average"))


def read_rows(path: Path) -> list[Row]:
    """The rows of `agents.json`. Raises `ScoreError` if it is not one."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return [
            Row(
                e["name"], e["student"], e["method"], tuple(e["tables"]), tuple(e.get("compare", ())), e.get("reported")
            )
            for e in entries
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ScoreError(f"{path}: not a list of agents ({type(error).__name__}: {error})") from None


def table(rows: Sequence[Row], cells: Cells, groups: Sequence[str]) -> Table:
    """The given rows over all benchmarks of some groups that anybody was scored on, in the registry's order."""
    scored = {benchmark for _, benchmark in cells}
    columns = [name for name in benchmarks.NAMES if name in scored and benchmarks.get(name).group in groups]
    return Table(tuple(rows), tuple(columns), cells)


def beside_paper(rows: Sequence[Row], cells: Cells, number: int) -> Table:
    """Table 1, 2 or 3 over the paper's own columns, scored or not, with its numbers beside ours."""
    published = [name for name in benchmarks.NAMES if benchmarks.get(name).world == "published"]
    columns = [name for name in published if benchmarks.get(name).group in GROUPS[number]]
    return Table(tuple(rows), tuple(columns), cells, reported.PART[number], others=number != 3)


def tidy_csv(table: Table) -> str:
    """One line per agent and column, "average" included; means and bounds in %, empty where there is no score."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in table.rows:
        cells = table.of(row)
        found = [((cell.interval(), "wilson") if cell else (None, ""), [cell]) for cell in cells]
        found.append((average(cells), cells))
        of_paper = table.reported(row)
        for column, ((interval, method), behind), paper in zip(
            (*table.columns, "average"), found, of_paper, strict=True
        ):
            gap = "" if paper is None or interval is None else f"{100 * interval.mean - paper:.3f}"
            beside = ("" if paper is None else paper, gap)
            words = (row.name, row.student, row.method, column)
            writer.writerow([*words, *_numbers(interval), method, *_counts(behind), *beside])
    return out.getvalue()


def grid(table: Table) -> Grid:
    """Means per column, and the average with its interval; what is significantly best is marked."""
    header = ["student", "method", *(benchmarks.get(name).label for name in table.columns), "average [95 %]"]
    winners = {column: _best(table, [column]) for column in table.columns}
    overall = _best(table, table.columns)
    lines = []
    for row in table.rows:
        cells = table.of(row)
        means = [
            marked(_percent(cell and cell.array.mean(), [cell]), row.name in winners[column])
            for column, cell in zip(table.columns, cells, strict=True)
        ]
        shown = marked(_with_interval(average(cells)[0], cells), row.name in overall)
        lines.append([row.student, row.method, *means, shown])
    return _beside_the_paper(table, Grid(header, lines)) if table.part else Grid(header, lines)


def _beside_the_paper(table: Table, ours: Grid) -> Grid:
    """Every row as lines: ours, the paper's, and their difference; then the rows that only the paper has."""
    lines = []
    for row, (student, method, *texts) in zip(table.rows, ours.lines, strict=True):
        cells = table.of(row)
        overall = average(cells)[0]
        means = [cell and 100 * cell.interval().mean for cell in cells] + [overall and 100 * overall.mean]
        texts = ["" if mean is None else text for text, mean in zip(texts, means, strict=True)]
        lines += reported.lines((student, method), texts, means, table.reported(row))
    known, students = [(row.student, row.reported) for row in table.rows], [row.student for row in table.rows]
    for student, method in reported.others(table.part, students, known) if table.others else ():
        paper = reported.of_row(table.part, student, method, (*table.columns, "average"))
        shown = [reported.NOT_REPORTED if value is None else f"{value:.1f}" for value in paper]
        lines.append([student, reported.LABELS[method], "paper", *shown])
    return Grid([*ours.header[:2], "", *ours.header[2:]], lines, words=3)


def headline_grid(table: Table) -> Grid:
    """Averages per group, the overall one with its interval, and the number of questions; the best is marked."""
    groups = {group: [c for c in table.columns if benchmarks.get(c).group == group] for group in GROUP_LABELS}
    groups = {group: columns for group, columns in groups.items() if columns}
    header = ["student", "method", *(GROUP_LABELS[group] for group in groups), "all [95 %]", "n"]
    winners, overall = [_best(table, columns) for columns in groups.values()], _best(table, table.columns)
    lines = []
    for row in table.rows:
        cells = table.of(row)
        of_groups = [table.of(row, columns) for columns in groups.values()]
        means = [
            marked(_percent((interval := average(group)[0]) and interval.mean, group), row.name in winner)
            for group, winner in zip(of_groups, winners, strict=True)
        ]
        n = sum(len(cell.values) for cell in cells if cell)
        shown = marked(_with_interval(average(cells)[0], cells), row.name in overall)
        lines.append([row.student, row.method, *means, shown, str(n)])
    return Grid(header, lines)


def _best(table: Table, columns: Sequence[str]) -> set[str]:
    """Of each student, the row that is significantly best over some columns, if one is."""
    by_student: dict[str, dict[str, list[Cell | None]]] = {}
    for row in table.rows:
        by_student.setdefault(row.student, {})[row.name] = table.of(row, columns)
    return {name for rows in by_student.values() if (name := best(rows))}


def markdown(table: Table, title: str, note: str, scores: Sequence[Scores] = ()) -> str:
    """The table with a caption, its methods, paired differences, and what several samples tell, if there are any."""
    parts = [f"**{title}.** {note}".strip(), text.markdown(grid(table)), *_legend(table), *_differences(table)]
    parts += samples.section(scores, table.rows, table.columns)
    return "\n\n".join(parts) + "\n"


def headline(table: Table, note: str) -> str:
    """Agents x groups, for a terminal: averages in %, the overall one with its interval and number of questions."""
    parts = [note, text.markdown(headline_grid(table)), *_legend(table), *_differences(table)]
    return "\n\n".join(filter(None, parts)) + "\n"


def latex(shown: Grid, table: Table, title: str, note: str) -> str:
    """The grid in LaTeX; title, note and methods are comments above it."""
    return text.latex(shown, [f"{title}. {note}".strip(), *_legend(table)])


def _legend(table: Table) -> list[str]:
    """What the numbers rest on, how they were made, and what a mark means."""
    paper = [reported.LEGEND] if table.part else []
    if not table.cells:
        return [_sample(table), *paper]
    complete = all(cell and cell.complete for row in table.rows for cell in table.of(row))
    return [_sample(table), METHODS, *([] if complete else [INCOMPLETE]), *paper]


def _sample(table: Table) -> str:
    """What the numbers rest on: the world, questions per column, seeds."""
    sizes = dict.fromkeys(table.columns, 0)
    seeds: set[int] = set()
    for row in table.rows:
        for column, cell in zip(table.columns, table.of(row), strict=True):
            sizes[column] = max(sizes[column], len(cell.values) if cell else 0)
            seeds.update(cell.seeds if cell else ())
    micro = any(benchmarks.get(column).world != "published" for column in table.columns)
    world = "Generated micro-world questions: these numbers are not the paper's." if micro else "Published questions."
    listed = ", ".join(f"{benchmarks.get(column).label} {n}" for column, n in sizes.items())
    if not seeds:
        return f"{world} Nothing was run."
    return f"{world} n = {sum(sizes.values())} questions ({listed}); seeds {', '.join(map(str, sorted(seeds)))}."


def _differences(table: Table) -> list[str]:
    """Paired differences between rows and those that they are compared with; nothing where none is in the table."""
    by_name = {row.name: row for row in table.rows}
    pairs = [(row, by_name[name]) for row in table.rows for name in row.compare if name in by_name]
    found = [(row, other, difference(table.of(row), table.of(other))) for row, other in pairs]
    found = [(row, other, gap) for row, other, gap in found if gap]
    lines = []
    for (row, other, gap), p in zip(found, holm([gap.p for _, _, gap in found]), strict=True):
        low, high = 100 * gap.interval.low, 100 * gap.interval.high
        size = f"{100 * gap.interval.mean:+.1f} [{low:+.1f}, {high:+.1f}], {_p_value(p)}"
        size = size if (low, high) != (0, 0) else "no question is scored differently"
        lines.append(f"- {row.student}: {row.method} − {other.method}: {size}")
    return [DIFFERENCES.format(n=len(lines)), "\n".join(lines)] if lines else []


def _p_value(p: float) -> str:
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def _numbers(interval: Interval | None) -> list[str]:
    return [f"{100 * x:.3f}" for x in (interval.mean, interval.low, interval.high)] if interval else ["", "", ""]


def _counts(cells: Sequence[Cell | None]) -> list[object]:
    """n questions, number of seeds, complete."""
    present = [cell for cell in cells if cell]
    complete = len(present) == len(cells) and all(cell.complete for cell in present)
    seeds = {seed for cell in present for seed in cell.seeds}
    return [sum(len(cell.values) for cell in present), len(seeds), str(complete).lower()]


def _percent(mean: float | None, cells: Sequence[Cell | None]) -> str:
    """A share in %, marked where a cell behind it is incomplete."""
    return "–" if mean is None else f"{100 * mean:.1f}" + ("" if all(cell.complete for cell in cells) else "*")


def _with_interval(interval: Interval | None, cells: Sequence[Cell | None]) -> str:
    if interval is None:
        return "–"
    return f"{_percent(interval.mean, cells)} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Make a table of results from score files.")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--table", type=int, choices=sorted(TITLES))
    kind.add_argument("--title", help="a table of all agents and benchmarks that have scores")
    kind.add_argument("--headline", action="store_true", help="one line per agent over all groups, also printed")
    parser.add_argument("--scores", required=True, type=Path, nargs="*")
    parser.add_argument("--agents", required=True, type=Path)
    parser.add_argument("--reported", action="store_true", help="set a table by number beside the paper's")
    parser.add_argument("--note", default="", help="what a reader must know of this experiment")
    parser.add_argument(
        "--contamination", type=Path, nargs="*", default=[], help="data/contamination.json, to count it"
    )
    parser.add_argument("--out-csv", type=Path)
    parser.add_argument("--out-md", type=Path)
    parser.add_argument("--out-tex", type=Path, help="LaTeX, for the package booktabs")
    args = parser.parse_args(argv)
    scores = [read_scores(path) for path in args.scores]
    note = " ".join(filter(None, [args.note, *map(contamination.sentence, args.contamination)]))
    rows, cells = read_rows(args.agents), pool(scores)
    if args.table:
        title = f"Table {args.table}: {TITLES[args.table]}"
        shown = [row for row in rows if args.table in row.tables]
        made = beside_paper(shown, cells, args.table) if args.reported else table(shown, cells, GROUPS[args.table])
    else:
        title, scored = args.title or "Headline", {agent for agent, _ in cells}
        made = table([row for row in rows if row.name in scored], cells, tuple(GROUP_LABELS))
    if args.headline:
        shown, words = headline_grid(made), headline(made, note)
        print(words)
    else:
        shown, words = grid(made), markdown(made, title, note, scores)
    if args.out_md:
        write_text(args.out_md, words)
    if args.out_csv:
        write_text(args.out_csv, tidy_csv(made))
    if args.out_tex:
        write_text(args.out_tex, latex(shown, made, title, note))


if __name__ == "__main__":
    cli.run(main)
