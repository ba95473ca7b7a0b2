"""The paper's numbers beside ours: what is shown where, and that nothing is made up where there is none."""

import csv
import json

import pytest

from report.test_tables import scores
from score.data import benchmarks
from score.jsonl import write_json
from score.report import reported
from score.report.figures import figure3a, figure3b
from score.report.tables import main

STUDENT = "Qwen2.5-7B-Instruct"
AGENTS = [
    {"name": "sft", "student": STUDENT, "method": "SCoRe-SFT", "tables": [1, 3], "reported": "score_sft"},
    {"name": "rl", "student": STUDENT, "method": "SCoRe-RL", "tables": [1, 3], "reported": "score_rl"},
    {"name": "dpo", "student": STUDENT, "method": "DPO", "tables": [1]},
]
MAIN = [name for name in benchmarks.NAMES if benchmarks.get(name).world == "published"][:8]


def test_every_number_stands_in_a_known_column():
    columns = {name for name in benchmarks.NAMES if benchmarks.get(name).world == "published"} | {"average"}
    for key, value in reported.numbers().items():
        assert 0 <= value <= 100
        if key.part in ("main", "deep"):
            assert key.column in columns, key
    with open(reported.TABLE, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(reported.numbers()), "a number stands there twice"
    assert all(row["source"] for row in rows)


def test_the_paper_compares_with_a_grpo_that_its_average_follows_from():
    """The average of table 1 is the mean of eight columns, where all of them are known."""
    paper = reported.of_row("main", STUDENT, "grpo", [*MAIN, "average"])
    assert None not in paper
    assert sum(paper[:8]) / 8 == pytest.approx(paper[8], abs=0.05)


def made(tmp_path, table, *scored):
    """(Markdown lines as lists of cells, CSV rows) of a table of AGENTS with some score files."""
    write_json(tmp_path / "agents.json", AGENTS)
    paths = []
    for agent, name, values in scored:
        paths.append(tmp_path / f"{agent}-{name}.json")
        write_json(paths[-1], scores(agent, name, values).to_json())
    out = {kind: tmp_path / f"t.{kind}" for kind in ("md", "csv", "tex")}
    files = [word for kind, path in out.items() for word in (f"--out-{kind}", str(path))]
    main(
        [
            "--table",
            str(table),
            "--reported",
            "--agents",
            str(tmp_path / "agents.json"),
            *files,
            "--scores",
            *map(str, paths),
        ]
    )
    lines = [line for line in out["md"].read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines], list(csv.DictReader(out["csv"].open()))


def test_a_row_has_ours_the_papers_and_the_difference(tmp_path):
    values = [1.0] * 12 + [0.0] * 18
    lines, rows = made(tmp_path, 3, ("rl", "aime24", values))
    at = {name: i for i, name in enumerate(lines[0])}
    ours, paper, gap = lines[[line[:3] for line in lines].index([STUDENT, "SCoRe-RL", "ours"]) :][:3]
    assert (ours[at["AIME24"]], paper[at["AIME24"]], gap[at["AIME24"]]) == ("40.0", "36.7", "+3.3")
    assert (ours[at["MATH500"]], paper[at["MATH500"]], gap[at["MATH500"]]) == ("not run", "not reported", "")
    assert (ours[-1], paper[-1], gap[-1]) == ("not run", "50.8", ""), "an average of one column is none"
    cell = next(row for row in rows if (row["agent"], row["column"]) == ("rl", "aime24"))
    assert (cell["reported"], float(cell["difference"])) == ("36.7", pytest.approx(3.3))
    assert "Difference: ours minus the paper's" in (tmp_path / "t.md").read_text()


def test_without_any_run_the_papers_own_table_is_left(tmp_path):
    lines, rows = made(tmp_path, 1)
    text = (tmp_path / "t.md").read_text()
    assert "Nothing was run." in text
    assert "bootstrap" not in text
    assert [STUDENT, "ARPO", "paper", "30.0"] in [line[:4] for line in lines]
    assert {line[2] for line in lines[2:]} == {"ours", "paper"}
    assert all(row["mean"] == "" for row in rows)
    dpo = lines[[line[1] for line in lines].index("DPO") + 1]
    assert set(dpo[3:]) == {"not reported"}


def test_the_ablation_has_no_rows_of_other_methods(tmp_path):
    lines, _ = made(tmp_path, 3)
    assert "ARPO" not in [line[1] for line in lines]


def test_figure_3a_beside_the_paper(tmp_path):
    task = {"id": "t", "dataset": "math_mps", "meta": {"metric": "math"}}
    rows = [
        {"task": task | {"id": f"t{i}"}, "corrections": [{}] * i, "outcome": "solved" if i < 4 else "hard"}
        for i in range(5)
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    figure3a.main(["--reported", "--corrections", str(tmp_path / "m.jsonl"), "--out-dir", str(tmp_path)])
    data = list(csv.DictReader((tmp_path / "figure3a.csv").open()))
    share = {(row["group"], row["corrections"]): row["share"] for row in data}
    assert float(share["math", "2+"]) == pytest.approx(0.4)
    assert float(share["math (paper)", "2+"]) == pytest.approx(0.027)
    assert share["math (paper)", "failed"] == ""
    assert sum(float(share["math", ending]) for ending in ("0", "1", "2+", "hard", "failed")) == pytest.approx(1)
    assert "71.0" in (tmp_path / "figure3a.md").read_text()


def test_an_ending_that_nobody_came_to_is_a_measured_zero(tmp_path):
    task = {"id": "t", "dataset": "math_mps", "meta": {"metric": "math"}}
    (tmp_path / "m.jsonl").write_text(json.dumps({"task": task, "corrections": [], "outcome": "solved"}) + "\n")
    figure3a.main(["--reported", "--corrections", str(tmp_path / "m.jsonl"), "--out-dir", str(tmp_path)])
    rows = csv.DictReader((tmp_path / "figure3a.csv").open())
    assert {row["corrections"]: float(row["share"]) for row in rows if row["group"] == "math"} == {
        "0": 1, "1": 0, "2+": 0, "hard": 0, "failed": 0,
    }  # fmt: skip


def test_figure_3b_beside_the_paper(tmp_path):
    write_json(tmp_path / "agents.json", AGENTS)
    write_json(tmp_path / "s.json", scores("rl", "hard", [1.0, 0.0, 0.0, 0.0]).to_json())
    for files in ([], [str(tmp_path / "s.json")]):
        arguments = ["--agents", str(tmp_path / "agents.json"), "--out-dir", str(tmp_path), "--scores", *files]
        figure3b.main(["--reported", *arguments])
        labels = {row["label"]: row["mean"] for row in csv.DictReader((tmp_path / "figure3b.csv").open())}
        assert float(labels["SCoRe-RL (paper)"]) == pytest.approx(0.243)
        assert ("SCoRe-RL" in labels) == bool(files)
