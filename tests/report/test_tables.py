"""Tables from score files: pooling of seeds, marks of what is missing, numbers that can be computed with."""

import csv
import json
import re

import numpy as np
import pytest

from score.errors import ScoreError
from score.evaluate.score import QuestionScore, Scores
from score.jsonl import write_json
from score.report.cells import average, best, difference, pool
from score.report.stats import share
from score.report.tables import main

AGENTS = [
    {"name": "teacher", "student": "Oracle", "method": "teacher", "tables": [1, 2]},
    {"name": "sft", "student": "Tiny", "method": "SFT", "tables": [1, 2, 3]},
    {"name": "rl", "student": "Tiny", "method": "RL", "tables": [1, 3], "compare": ["sft", "absent"]},
]


def scores(agent, benchmark, values, seed=0, **changes):
    rows = tuple(QuestionScore(f"{benchmark}-{i}", value, "answered") for i, value in enumerate(values))
    known = [value for value in values if value is not None]
    fields = {"version": 1, "metric": "exact", "normalisation": "squad", "rates": {}, "means": {}} | changes
    mean = float(np.mean(known)) if known else None
    complete = len(known) == len(values)
    return Scores(
        agent, seed, benchmark, questions=len(values), n=len(known), mean=mean, complete=complete, rows=rows, **fields
    )


def test_seeds_are_pooled_by_question():
    cells = pool([scores("a", "math2", [1, 0, None], seed=0), scores("a", "math2", [0, 0, 1], seed=1)])
    cell = cells["a", "math2"]
    assert cell.values == {"math2-0": 0.5, "math2-1": 0, "math2-2": 1}
    assert (cell.seeds, cell.complete) == ((0, 1), False)
    assert cell.interval() == share(np.array([0.5, 0, 1]))


def test_a_missing_seed_makes_a_cell_incomplete():
    cells = pool([scores("a", "math2", [1]), scores("a", "math2", [1], seed=1), scores("b", "math2", [1])])
    assert cells["a", "math2"].complete
    assert not cells["b", "math2"].complete
    assert ("c", "math2") not in pool([scores("c", "math2", [None])])


def test_scores_that_cannot_be_compared_are_refused():
    one = scores("a", "math2", [1, 0])
    with pytest.raises(ScoreError, match="scores of a, seed 0, on math2 are given twice"):
        pool([one, one])
    with pytest.raises(ScoreError, match=r"b \(seed 0\) and a \(seed 0\) were scored by different rules on math2"):
        pool([one, scores("b", "math2", [1, 0], version=2)])
    with pytest.raises(ScoreError, match=r"b \(seed 1\) and a \(seed 0\) were scored on different questions of math2"):
        pool([one, scores("b", "math2", [1], seed=1)])


def test_averages_weigh_benchmarks_and_differences_pair_questions():
    cells = pool([
        scores("a", "math2", [1, 1, 0, 0]), scores("a", "hop2", [1, 1]),
        scores("b", "math2", [1, 0, 0, None]), scores("b", "hop2", [1, 0]),
    ])  # fmt: skip
    a, b = ([cells[agent, name] for name in ("math2", "hop2")] for agent in "ab")
    assert average(a)[0].mean == pytest.approx((0.5 + 1) / 2)
    assert average([a[0], None]) == (None, "")
    assert difference(a, b).interval.mean == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert difference(a, [b[0], None]) is None


def test_a_difference_that_is_the_same_on_every_question_is_still_one(tmp_path):
    write_json(tmp_path / "agents.json", [a for a in AGENTS if a["name"] != "teacher"])
    paths = []
    for agent, value in (("sft", 0.0), ("rl", 1.0)):
        paths.append(tmp_path / f"{agent}.json")
        write_json(paths[-1], scores(agent, "math2", [value] * 5).to_json())
    words = [
        "--scores",
        *map(str, paths),
        "--agents",
        str(tmp_path / "agents.json"),
        "--out-md",
        str(tmp_path / "t.md"),
    ]
    main(["--table", "1", *words])
    text = (tmp_path / "t.md").read_text()
    assert "RL − SFT: +100.0 [+100.0, +100.0], p = 0.0" in text
    assert "no question is scored differently" not in text


def test_several_samples_have_a_table_of_their_own(tmp_path):
    write_json(tmp_path / "agents.json", AGENTS)
    told = {"questions": 2, "samples": 4, "mean": 0.5, "standard_error": 0.1, "majority": 0.75, "pass@1": 0.5}
    told |= {"pass@4": 1.0, "pass@2": 0.8}
    paths = []
    for agent, more in (("sft", {}), ("rl", {"of_samples": told})):
        paths.append(tmp_path / f"{agent}.json")
        write_json(paths[-1], scores(agent, "math2", [0.5, 0.25]).to_json() | more)
    words = ["--agents", str(tmp_path / "agents.json"), "--out-md", str(tmp_path / "t.md")]
    main(["--table", "1", *words, "--scores", *map(str, paths)])
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in (tmp_path / "t.md").read_text().splitlines()]
    header = next(line for line in lines if "samples" in line)
    assert header[3:] == ["samples", "mean", "pass@1", "pass@2", "pass@4", "majority", "n"]
    assert lines[lines.index(header) + 2][2:] == ["math2", "4", "50.0 ± 10.0", "50.0", "80.0", "100.0", "75.0", "2"]
    write_json(paths[1], scores("rl", "math2", [0.5, 0.25]).to_json())
    main(["--table", "1", *words, "--scores", *map(str, paths)])
    assert "pass@" not in (tmp_path / "t.md").read_text()


def test_only_what_is_better_than_every_other_row_is_best():
    rng = np.random.default_rng(0)
    low, middle, high = (list((rng.random(200) < p).astype(float)) for p in (0.3, 0.5, 0.9))
    cells = pool([scores("low", "math2", low), scores("middle", "math2", middle), scores("high", "math2", high)])
    row = {name: [cells[name, "math2"]] for name in ("low", "middle", "high")}
    assert best(row) == "high"
    assert best({"middle": row["middle"], "high": row["high"], "twin": row["high"]}) is None, "a tie"
    assert best({"high": row["high"]}) is None, "nothing to compare with"
    assert best({"high": row["high"], "absent": [None]}) is None
    close = pool([scores("a", "math2", [1.0, *middle[1:]]), scores("b", "math2", [0.0, *middle[1:]])])
    assert best({name: [close[name, "math2"]] for name in "ab"}) is None, "better, but not significantly"


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    rates = {"teacher": 0.9, "sft": 0.5, "rl": 0.7}
    paths = []
    for agent, rate in rates.items():
        for seed in (0, 1):
            for name in ("math2", "math3", "hop2", "deep11"):
                if (agent, name) == ("rl", "deep11") or (agent, name, seed) == ("teacher", "hop2", 1):
                    continue
                values = [float(value) for value in rng.random(40) < rate]
                if (agent, name, seed) == ("sft", "math3", 0):
                    values[3] = None
                path = tmp_path / f"{agent}-{seed}-{name}.score.json"
                write_json(path, scores(agent, name, values, seed).to_json())
                paths.append(str(path))
    write_json(tmp_path / "agents.json", AGENTS)
    return ["--scores", *paths, "--agents", str(tmp_path / "agents.json")]


def test_table_1(tmp_path, files):
    main(
        [
            "--table",
            "1",
            *files,
            "--note",
            "A note.",
            "--out-csv",
            str(tmp_path / "t.csv"),
            "--out-md",
            str(tmp_path / "t.md"),
        ]
    )
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert [row["column"] for row in rows] == ["math2", "math3", "hop2", "average"] * 3
    assert [row["agent"] for row in rows[::4]] == ["teacher", "sft", "rl"]
    for row in rows:
        assert 0 <= float(row["low"]) <= float(row["mean"]) <= float(row["high"]) <= 100
        incomplete = row["agent"] == "teacher" and row["column"] in ("hop2", "average")
        incomplete |= row["agent"] == "sft" and row["column"] in ("math3", "average")
        assert (row["complete"] == "false") == incomplete
        assert int(row["n"]) == (120 if row["column"] == "average" else 40)
    for agent in range(3):
        means = [float(row["mean"]) for row in rows[4 * agent : 4 * agent + 4]]
        assert means[3] == pytest.approx(np.mean(means[:3]), abs=0.001)
    text = (tmp_path / "t.md").read_text()
    assert text.startswith("**Table 1: Mathematics and factual questions.** A note.\n")
    assert "these numbers are not the paper's. n = 120 questions (math2 40, math3 40, hop2 40); seeds 0, 1." in text
    line = next(line for line in text.splitlines() if line.startswith("| Tiny    | SFT"))
    assert re.findall(r"[\d.]+\*?", line)[1].endswith("*")
    assert "\\* incomplete:" in text
    assert re.search(r"- Tiny: RL − SFT: \+\d+\.\d \[\+\d+\.\d, \+\d+\.\d\], p [<=] 0\.00\d$", text, re.MULTILINE)
    assert "p after Holm's correction over the 1 of this table" in text
    assert "SFT − teacher" not in text


def test_table_2_shows_absent_cells_as_not_run(tmp_path, files):
    main(["--table", "2", *files, "--out-csv", str(tmp_path / "t.csv"), "--out-md", str(tmp_path / "t.md")])
    assert [row["agent"] for row in csv.DictReader((tmp_path / "t.csv").open())] == ["teacher", "teacher", "sft", "sft"]
    write_json(tmp_path / "agents.json", [agent | {"tables": [2]} for agent in AGENTS])
    main(["--table", "2", *files, "--out-csv", str(tmp_path / "t.csv"), "--out-md", str(tmp_path / "t.md")])
    last = list(csv.DictReader((tmp_path / "t.csv").open()))[-1]
    assert (last["agent"], last["mean"], last["n"], last["complete"]) == ("rl", "", "0", "false")
    line = next(line for line in (tmp_path / "t.md").read_text().splitlines() if line.startswith("| Tiny    | RL"))
    assert [cell.strip() for cell in line.split("|")[3:5]] == ["–", "–"]


def test_headline(tmp_path, files, capsys):
    main(["--headline", *files, "--note", "Micro.", "--out-md", str(tmp_path / "h.md")])
    text = (tmp_path / "h.md").read_text()
    assert text in capsys.readouterr().out
    lines = [line.split("|") for line in text.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in lines[0]] == [
        "",
        "student",
        "method",
        "math",
        "facts",
        "deep search",
        "all [95 %]",
        "n",
        "",
    ]
    assert [line[-2].strip() for line in lines[2:]] == ["160", "160", "120"]
    assert [cell.strip() for cell in lines[4][5:7]] == ["–", "–"]


LATEX = r"""\begin{tabular}{llrr}
\toprule
 student    & method              &   math2 &        average [95 \%] \\
\midrule
 Tiny\_0.5B & BC on 20 \% \& more  &   50.0* &   50.0* [9.5, 90.5] \\
 Tiny\_0.5B & SCoRe $-$ key \{step\} &   100.0 & 100.0 [34.2, 100.0] \\
 Tiny\_0.5B & not run             &      -- &                  -- \\
\bottomrule
\end{tabular}
"""


def test_latex_escapes_what_labels_may_hold(tmp_path):
    methods = {"bc": "BC on 20 % & more", "rl": "SCoRe − key {step}", "off": "not run"}
    agents = [{"name": n, "student": "Tiny_0.5B", "method": m, "tables": [1]} for n, m in methods.items()]
    write_json(tmp_path / "agents.json", agents)
    write_json(tmp_path / "bc.json", scores("bc", "math2", [1, 0, None]).to_json())
    write_json(tmp_path / "rl.json", scores("rl", "math2", [1, 1, None]).to_json() | {"complete": True})
    paths = [str(tmp_path / name) for name in ("bc.json", "rl.json")]
    command = ["--scores", *paths, "--agents", str(tmp_path / "agents.json"), "--note", "One\nnote & 5 %."]
    main(["--table", "1", *command, "--out-tex", str(tmp_path / "t.tex")])
    text = (tmp_path / "t.tex").read_text()
    assert re.sub(" +", " ", text[text.index("\\begin") :]) == re.sub(" +", " ", LATEX)
    comments = text[: text.index("\\begin")].splitlines()
    assert all(line.startswith("% ") for line in comments), "a caption of several lines stays a comment"
    assert comments[1] == "% Table 1: Mathematics and factual questions. One note & 5 %."


@pytest.mark.parametrize("kind", [["--title", "Baselines"], ["--headline"]])
def test_every_kind_of_table_has_a_latex_form(tmp_path, files, kind):
    main([*kind, *files, "--out-tex", str(tmp_path / "t.tex")])
    lines = (tmp_path / "t.tex").read_text().splitlines()
    rows = [line for line in lines if line.endswith(r"\\")]
    assert f"% {kind[-1].strip('-').capitalize()}." in lines
    assert len(rows) == 1 + len(AGENTS)
    assert len({line.count("&") for line in rows}) == 1


def test_a_table_without_rows_has_its_columns_in_latex(tmp_path, files):
    write_json(tmp_path / "agents.json", [agent | {"tables": []} for agent in AGENTS])
    main(["--table", "1", *files, "--out-tex", str(tmp_path / "t.tex")])
    text = (tmp_path / "t.tex").read_text()
    assert r"\begin{tabular}{llrrrr}" in text
    assert {line.count("&") for line in text.splitlines() if line.endswith(r"\\")} == {5}


def test_tables_say_how_many_test_questions_stood_in_training(tmp_path, files):
    counts = {"test_questions_found": 3, "distinct": 90, "nearly_found": 1, "dropped": 5}
    write_json(tmp_path / "c.json", {"counts": counts, "benchmarks": {"math2": {"questions": 40}}})
    main(["--table", "1", *files, "--contamination", str(tmp_path / "c.json"), "--out-md", str(tmp_path / "t.md")])
    assert (
        "3 of the 40 test questions of all benchmarks stood in the 90 training questions"
        in (tmp_path / "t.md").read_text()
    )
    with pytest.raises(ScoreError, match=r"agents\.json: not a list of contamination"):
        main(["--table", "1", *files, "--contamination", str(tmp_path / "agents.json")])


def test_tables_are_reproducible(tmp_path, files):
    for name in ("a", "b"):
        main(["--table", "3", *files, "--out-md", str(tmp_path / name)])
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text()


def test_bad_inputs_are_named(tmp_path, files):
    (tmp_path / "bad.json").write_text(json.dumps([{"name": "x"}]))
    with pytest.raises(ScoreError, match=r"bad\.json: not a list of agents \(KeyError: 'student'\)"):
        main(["--headline", *files[:-1], str(tmp_path / "bad.json")])
    with pytest.raises(ScoreError, match=r"bad\.json: not a score file"):
        main(["--headline", "--scores", str(tmp_path / "bad.json"), *files[-2:]])
