"""The paper's claims: they agree with the paper's own numbers, and ours stand beside them only where there are any."""

from pathlib import Path

import pytest
import yaml

from report.test_tables import scores
from score.data import benchmarks
from score.jsonl import write_json
from score.report import reported
from score.report.cells import pool
from score.report.reproduction import claims, differences, main, read_figures, report
from score.report.tables import Row
from score.workflow import Plan

ROOT = Path(__file__).parents[2]
MAIN = [name for name in benchmarks.NAMES if benchmarks.get(name).world == "published"][:8]
STUDENT = "Qwen2.5-7B-Instruct"


@pytest.mark.parametrize("claim", claims(), ids=lambda claim: claim.text)
def test_a_claim_follows_from_the_reported_averages(claim):
    if claim.part == "figure3a":
        rows = [reported.numbers()[reported.Key("figure3a", STUDENT, claim.left[1], claim.left[0])]]
    else:
        column = "hard" if claim.part == "figure3b" else "average"
        rows = [reported.of_row(claim.part, *key, [column])[0] for key in (claim.left, claim.right) if key]
    assert None not in rows
    value = rows[0] - rows[1] if claim.right else rows[0]
    assert value == pytest.approx(claim.value, abs=0.051)


def rows():
    return [Row("sft", STUDENT, "SFT", (1, 3), (), "score_sft"), Row("rl", STUDENT, "RL", (1, 3), (), "score_rl")]


def line(text, words):
    return next(line for line in text.splitlines() if words in line)


def test_a_difference_needs_all_columns_of_both_rows():
    values = {"sft": [1.0] * 10 + [0.0] * 10, "rl": [1.0] * 15 + [0.0] * 5}
    complete = pool([scores(agent, name, values[agent]) for agent in values for name in MAIN])
    text = report(rows(), complete, {})
    shown = line(text, "RL from verified prefixes")
    assert "+5.0" in shown
    assert "+25.0 [" in shown
    assert line(text, "What the short horizon").rstrip(" |").endswith("not run")
    partial = {key: cell for key, cell in complete.items() if key != ("rl", "bamboogle")}
    assert line(report(rows(), partial, {}), "RL from verified prefixes").rstrip(" |").endswith("not run")


def test_shares_come_from_the_figures(tmp_path):
    a, b = tmp_path / "figure3a.csv", tmp_path / "figure3b.csv"
    a.write_text("group,corrections,share,low,high\nmath,0,0.5,0.4,0.6\nmath (paper),0,0.71,,\n")
    b.write_text("agent,mean,low,high,complete\nrl,0.2,0.1,0.3,False\n")
    text = report(rows(), {}, read_figures([a, b], rows()))
    assert "50.0 [40.0, 60.0]" in line(text, "Mathematics tasks that the student solves")
    assert "20.0 [10.0, 30.0]*" in line(text, "solved after SCoRe-RL")
    assert "not run" in line(text, "solved after SCoRe-SFT")


def test_differences_are_numbered():
    text = report(rows(), {}, {})
    assert f"{len(differences())}. {differences()[-1]}" in text


def test_the_document_counts_the_test_questions_that_stood_in_training(tmp_path):
    counts = {"test_questions_found": 593, "distinct": 9000, "nearly_found": 10, "dropped": 700}
    write_json(tmp_path / "c.json", {"counts": counts, "benchmarks": {"gaia": {"questions": 103}}})
    (tmp_path / "agents.json").write_text("[]")
    words = ["--contamination", str(tmp_path / "c.json"), "--out", str(tmp_path / "r.md")]
    main(["--agents", str(tmp_path / "agents.json"), "--scores", *words])
    assert "593 of the 103 test questions" in (tmp_path / "r.md").read_text()


def test_the_document_in_docs_is_the_one_that_is_generated(tmp_path):
    """Until something of the paper's experiment has been run: then it is generated from scores, and this test goes."""
    plan = Plan(yaml.safe_load((ROOT / "config.yaml").read_text()))
    (tmp_path / "agents.json").write_text(plan.agents_json())
    main(["--agents", str(tmp_path / "agents.json"), "--scores", "--out", str(tmp_path / "r.md")])
    assert (tmp_path / "r.md").read_text() == (ROOT / "docs/REPRODUCTION.md").read_text()
