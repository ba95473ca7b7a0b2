"""Figures from corrections, scores and logs: the numbers behind them by hand, and that four whole files appear."""

import csv

import pytest

from score.errors import ScoreError
from score.evaluate.score import QuestionScore, Scores
from score.jsonl import write_json, write_rows, write_text
from score.report.figures import (
    figure3a,
    figure3b,
    gradient_variance,
    horizon,
    learning_curves,
    style,
    values,
)
from score.report.tables import Row

AGENTS = [
    {"name": "bc", "student": "Tiny", "method": "BC", "tables": [1]},
    {"name": "rl", "student": "Tiny", "method": "SCoRe-RL", "tables": [1]},
]
ROWS = [Row(a["name"], a["student"], a["method"], (1,)) for a in AGENTS]
NOTE = "A made-up experiment."


def mentored(dataset, corrections, outcome, metric="exact", name="t"):
    task = {"id": f"{dataset}-{name}", "dataset": dataset, "meta": {"metric": metric}}
    return {"task": task, "corrections": [{}] * corrections, "outcome": outcome}


def scores(agent, benchmark, values, seed=0):
    rows = tuple(QuestionScore(name, value, "answered") for name, value in values.items())
    known = [value for value in values.values() if value is not None]
    return Scores(
        agent, seed, benchmark, 1, "exact", "squad", len(rows), len(known), None, len(known) == len(rows), {}, {}, rows
    )


def write_scores(folder, *given):
    paths = [folder / s.agent / str(s.seed) / f"{s.benchmark}.score.json" for s in given]
    for path, s in zip(paths, given, strict=True):
        write_json(path, s.to_json())
    return list(map(str, paths))


@pytest.fixture
def agents(tmp_path):
    write_json(tmp_path / "agents.json", AGENTS)
    return str(tmp_path / "agents.json")


def check_files(folder, name, *texts):
    """All four files are there and whole; the Markdown holds the texts. Returns the rows of the data."""
    from matplotlib.image import imread

    height, width = imread(folder / f"{name}.png").shape[:2]
    assert width > 1000
    assert height > 300
    pdf = (folder / f"{name}.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"CreationDate" not in pdf
    written = (folder / f"{name}.md").read_text()
    for text in (NOTE, *texts):
        assert text in written
    with open(folder / f"{name}.csv") as file:
        return list(csv.DictReader(file))


# Figure 3a


def test_shares_by_corrections_add_up_and_show_the_remainder(tmp_path):
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    write_rows(files[0], [mentored("math2", 0, "solved"), mentored("math3", 2, "solved"), mentored("hop2", 3, "hard")])
    write_rows(files[1], [mentored("math2", 1, "failed", name="u"), mentored("math2", 0, "solved")])
    data = figure3a.shares(figure3a.count(files)).set_index(["group", "corrections"])
    assert data.loc[("math", "0"), "share"] == 0.5
    assert data.loc[("math", "1"), "share"] == 0, "a number of corrections that nobody needed is shown as none"
    assert data.loc[("math", "failed"), "share"] == 0.25
    assert data.loc[("facts", "hard"), "share"] == 1
    assert dict(data.groupby("group")["share"].sum()) == pytest.approx({"math": 1, "facts": 1})
    assert (data.loc[("math", "0"), "tasks"], data.loc[("math", "0"), "n"]) == (2, 3)


def test_more_seeds_of_the_same_tasks_do_not_narrow_the_interval(tmp_path):
    write_rows(tmp_path / "t.jsonl", [mentored("math2", i % 3, "solved", name=i) for i in range(60)])
    once, thrice = (figure3a.shares(figure3a.count([tmp_path / "t.jsonl"] * seeds)) for seeds in (1, 3))
    assert list(once["low"]) == pytest.approx(list(thrice["low"]))
    assert list(once["high"]) == pytest.approx(list(thrice["high"]))


def test_published_questions_are_maths_or_search():
    counts = figure3a.Counter()
    for metric in ("math", "judge"):
        counts[figure3a._group(mentored("seed_file", 0, "solved", metric)["task"])] += 1
    assert dict(counts) == {"math": 1, "search": 1}


def test_figure3a_from_files(tmp_path):
    write_rows(tmp_path / "t.jsonl", [mentored("math2", i % 3, "solved", name=i) for i in range(9)])
    figure3a.main(["--corrections", str(tmp_path / "t.jsonl"), "--note", NOTE, "--out-dir", str(tmp_path)])
    rows = check_files(tmp_path, "figure3a", "33.3 [12.1, 64.6]", "n = 9")
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1)


def test_a_line_that_is_no_mentored_task_is_named(tmp_path):
    write_rows(tmp_path / "t.jsonl", [{"outcome": "solved"}])
    with pytest.raises(ScoreError, match=r"t.jsonl:1: not a mentored task"):
        figure3a.count([tmp_path / "t.jsonl"])


# Figure 3b


def test_hard_tasks_are_pooled_by_question_over_the_seeds_that_have_them():
    given = [
        scores("bc", "hard", {"a": 0.0, "b": 0.0}, seed=0), scores("bc", "hard", {"b": 1.0, "c": 1.0}, seed=1),
        scores("rl", "hard", {"a": 1.0, "b": 1.0}, seed=0), scores("rl", "hard", {"b": 1.0, "c": 1.0}, seed=1),
    ]  # fmt: skip
    data = figure3b.accuracies(figure3b.pool_hard(given), ROWS).set_index("agent")
    assert data.loc["bc", "mean"] == pytest.approx((0 + 0.5 + 1) / 3)
    assert (data.loc["bc", "n"], data.loc["bc", "seeds"], data.loc["bc", "interval"]) == (3, 2, "wilson")
    assert (data.loc["rl", "mean"], data.loc["rl", "interval"]) == (1, "wilson")


def test_scores_on_something_else_are_refused():
    with pytest.raises(ScoreError, match="scores of bc, seed 0, are on 'math2'"):
        figure3b.pool_hard([scores("bc", "math2", {"a": 1.0})])


@pytest.mark.parametrize("questions", [{"a": 0.0, "b": 1.0}, {}])
def test_figure3b_from_files_with_and_without_a_hard_task(tmp_path, agents, questions):
    paths = write_scores(tmp_path, scores("bc", "hard", questions), scores("rl", "hard", questions))
    figure3b.main(["--scores", *paths, "--agents", agents, "--note", NOTE, "--out-dir", str(tmp_path)])
    said = "no hard task was kept out" if not questions else "50.0"
    assert len(check_files(tmp_path, "figure3b", said)) == (2 if questions else 0)


# Learning curves

LOG = """step,reward,heldout/accuracy,heldout/n,episode/new_tokens,train_runtime
0,,{first},40,,
1,0.2,,,100,
2,0.4,{last},40,100,
2,,,,,9.5
"""


def write_logs(folder, runs):
    paths = [folder / f"train/{agent}-s{seed}/log.csv" for agent, seed, _, _ in runs]
    for path, (_, _, first, last) in zip(paths, runs, strict=True):
        write_text(path, LOG.format(first=first, last=last))
    return list(map(str, paths))


def test_updates_to_an_accuracy_halfway_up(tmp_path):
    paths = write_logs(tmp_path, [("bc", 0, 0.2, 0.2), ("rl", 0, 0.2, 0.6), ("rl", 1, 0.2, 0.4)])
    curves = learning_curves.read_curves([tmp_path / p for p in paths])
    accuracies = learning_curves.accuracy_curves(curves)
    a = learning_curves.target(accuracies)
    assert a == pytest.approx((0.2 + 0.5) / 2)
    assert learning_curves.updates_to(accuracies["rl"], a) == 2
    assert learning_curves.updates_to(accuracies["bc"], a) is None
    table = learning_curves.table(curves, ROWS).set_index("agent")
    assert list(table["updates to 35.0 %"]) == ["not reached", "2"]
    assert table.loc["SCoRe-RL", "rollout tokens"] == "200"
    assert table.loc["SCoRe-RL", "seeds"] == 2


@pytest.mark.parametrize("runs", [[("rl", 0, 0.2, 0.6)], [("bc", 0, 0.2, 0.3), ("rl", 0, 0.2, 0.6), ("rl", 1, 0, 0.4)]])
def test_learning_curves_from_files(tmp_path, agents, runs):
    paths = write_logs(tmp_path, runs)
    learning_curves.main(["--logs", *paths, "--agents", agents, "--note", NOTE, "--out-dir", str(tmp_path)])
    rows = check_files(tmp_path, "learning_curves", "updates to")
    assert {(row["agent"], row["seed"]) for row in rows} == {(agent, str(seed)) for agent, seed, _, _ in runs}


def test_the_axes_of_a_few_updates_without_success_are_whole(tmp_path):
    paths = write_logs(tmp_path, [("bc", 0, 0.0, 0.0)])
    curves = learning_curves.read_curves([tmp_path / p for p in paths])
    left, right = learning_curves.draw(curves, ROWS, NOTE).axes
    low, high = left.get_ylim()
    assert low < 0, "the line lies above the axis"
    assert high == 1, "no ticks of a hundredth of a percent"
    assert all(tick == round(tick) for axes in (left, right) for tick in axes.get_xticks())


def test_a_run_without_held_out_questions_still_has_its_reward(tmp_path, agents):
    write_text(tmp_path / "train/rl-s0/log.csv", "step,reward\n1,0.5\n2,0.7\n")
    command = ["--logs", str(tmp_path / "train/rl-s0/log.csv"), "--agents", agents, "--note", NOTE]
    learning_curves.main([*command, "--out-dir", str(tmp_path)])
    check_files(tmp_path, "learning_curves", "–")


def test_a_log_of_nobody_is_named(tmp_path):
    with pytest.raises(ScoreError, match="whose log is it"):
        learning_curves.run_of(tmp_path / "log.csv")


# Theorems


def test_accuracy_by_gold_steps(tmp_path, agents):
    given = [scores("bc", "math2", {"a": 1.0, "b": 0.0}), scores("rl", "math2", {"a": 1.0, "b": 1.0})]
    write_rows(tmp_path / "math2.jsonl", [{"id": "a", "meta": {"steps": 3}}, {"id": "b", "meta": {"steps": 5}}])
    command = ["--scores", *write_scores(tmp_path, *given), "--tasks", str(tmp_path / "math2.jsonl")]
    horizon.main([*command, "--agents", agents, "--note", NOTE, "--out-dir", str(tmp_path)])
    rows = check_files(tmp_path, "horizon", "3 steps (n = 1)")
    found = {(row["agent"], int(row["steps"])): float(row["mean"]) for row in rows}
    assert found == {("bc", 3): 1, ("bc", 5): 0, ("rl", 3): 1, ("rl", 5): 1}
    write_rows(tmp_path / "other.jsonl", [{"id": "a"}])
    with pytest.raises(ScoreError, match=r"other.jsonl:1: the task has no gold steps"):
        horizon.read_steps([tmp_path / "other.jsonl"])


HEADER = "agent,seed,task,prefix,remaining,rollouts,success,variance,variance_with_baseline,norm2"


def spread(task, prefix, remaining, variance, seed=0):
    """A line of measured variance; half of it is left with a baseline."""
    return f"sft,{seed},{task},{prefix},{remaining},16,0.25,{variance},{variance / 2},0.5"


def test_gradient_variance_from_files(tmp_path):
    lines = [HEADER]
    lines += [spread(f"t{t}", k, 8 - k, 10 - k + t) for t in range(3) for k in (0, 2, 4)]
    write_text(tmp_path / "v.csv", "\n".join(lines) + "\n")
    gradient_variance.main(["--data", str(tmp_path / "v.csv"), "--note", NOTE, "--out-dir", str(tmp_path)])
    rows = check_files(tmp_path, "gradient_variance", "theorem 3.3", "25.0")
    assert [float(row["with_baseline"]) for row in rows] == pytest.approx([5.5, 4.5, 3.5])
    assert [float(row["mean"]) for row in rows] == pytest.approx([11, 9, 7])
    assert float(rows[0]["bound"]) == pytest.approx(11)
    assert float(rows[2]["bound"]) < float(rows[1]["bound"]) < 11
    assert {row["n"] for row in rows} == {"3"}


def test_seeds_of_a_task_are_one_task(tmp_path):
    lines = [HEADER]
    lines += [spread("a", 0, 4, 1), spread("a", 0, 4, 3, seed=1), spread("b", 0, 6, 4)]
    write_text(tmp_path / "v.csv", "\n".join(lines) + "\n")
    (row,) = gradient_variance.aggregate(gradient_variance.read_variances([tmp_path / "v.csv"]), 0.9).to_dict("records")
    assert (row["mean"], row["n"], row["seeds"]) == (3, 2, 2), "(1 + 3) / 2 and 4, not their mean over three lines"
    assert row["low"] == 2
    assert row["high"] == 4


@pytest.mark.parametrize("lines", [[], [spread("a", 0, 4, 0), spread("a", 2, 2, 0)]])
def test_no_variance_at_all_is_drawn_too(tmp_path, lines):
    header = HEADER
    write_text(tmp_path / "v.csv", "\n".join([header, *lines]) + "\n")
    gradient_variance.main(["--data", str(tmp_path / "v.csv"), "--note", NOTE, "--out-dir", str(tmp_path)])
    assert len(check_files(tmp_path, "gradient_variance")) == len(lines)


def test_a_file_of_something_else_is_named(tmp_path):
    write_text(tmp_path / "v.csv", "agent,seed\nsft,0\n")
    with pytest.raises(ScoreError, match=r"v.csv: not a file of gradient variances"):
        gradient_variance.read_variances([tmp_path / "v.csv"])
    write_text(tmp_path / "train/rl-s0/log.csv", "step,loss\n1,0.5\n")
    with pytest.raises(ScoreError, match=r"log.csv: no columns step and reward"):
        learning_curves.read_curves([tmp_path / "train/rl-s0/log.csv"])


# Looks and labels


def test_agents_look_different_and_the_same_in_every_figure():
    names = [f"agent {i}" for i in range(40)]
    everyone = style.looks(names, names)
    assert len(set(everyone.values())) == 40
    assert len({(look.marker, look.dashes) for look in everyone.values()}) == 35, "without colour, as far as they go"
    assert style.looks(names, ["agent 7"]) == {"agent 7": everyone["agent 7"]}


def test_students_are_named_where_methods_are_not_enough():
    rows = [Row("a", "3B", "BC", (1,)), Row("b", "7B", "BC", (1,)), Row("c", "7B", "SCoRe-RL", (1,))]
    assert values.labels(rows) == {"a": "BC, 3B", "b": "BC, 7B", "c": "SCoRe-RL"}


def test_incomplete_accuracies_are_marked(tmp_path, agents):
    paths = write_scores(
        tmp_path, scores("bc", "hard", {"a": 1.0, "b": None}), scores("rl", "hard", {"a": 1.0, "b": 0.0})
    )
    figure3b.main(["--scores", *paths, "--agents", agents, "--note", NOTE, "--out-dir", str(tmp_path)])
    rows = check_files(tmp_path, "figure3b", "100.0* [", "\\* incomplete", "50.0 [")
    assert [(row["n"], row["complete"]) for row in rows] == [("1", "False"), ("2", "True")]


def test_the_same_input_gives_the_same_bytes(tmp_path):
    write_rows(tmp_path / "t.jsonl", [mentored("math2", i % 3, "solved", name=i) for i in range(9)])
    made = []
    for name in ("a", "b"):
        figure3a.main(["--corrections", str(tmp_path / "t.jsonl"), "--out-dir", str(tmp_path / name)])
        made.append([(tmp_path / name / f"figure3a.{suffix}").read_bytes() for suffix in ("pdf", "png", "csv", "md")])
    assert made[0] == made[1]
