"""The audit of a teacher: what counts as located and as right, held against scripted teachers and the served oracle."""

import json
import re
from pathlib import Path

import pytest

from fakes import LocalPool, ScriptedAsyncEngine
from score.agent.protocol import plan_text, step_text
from score.config import read_merged
from score.config.schema import Sampling
from score.correct import audit
from score.correct.audit import examine, judge, rates, summary
from score.correct.planting import Planted, play
from score.correct.teacher import Correction, Failure, Right, Teacher
from score.errors import InfrastructureError, ScoreError
from score.jsonl import read_rows
from score.micro.backend import KnowledgeBase
from score.micro.graph import parse
from score.micro.mutations import EVERY, Plant, right_turns
from score.micro.tasks import make_tasks
from score.micro.world import make_world
from score.records import Step, Task
from score.search import tool

ROOT = Path(__file__).parents[2]
WORLD = make_world()
TOOLS = {"web_search": tool(KnowledgeBase(WORLD), 1)}
QUESTION = "Ba has 5 coins. Be has Ba - 3 coins. Bi has Be * 4 coins. How many coins has Bi?"
TASK = Task("t", QUESTION, ("8",), "math3", {"group": "math", "steps": 4})
WRONG = {2: ("Find Be", "Be = Ba + 3\nprint(Be)")}
MICRO = ["--config", str(ROOT / "config.yaml"), "--overlay", str(ROOT / "configs/micro.yaml")]


def made(k=2, lapse=2, wrong=WRONG, mutation="wrong_operation", graph=None):
    plant = Plant(TASK, mutation, k, lapse, graph or parse(QUESTION, WORLD), wrong, 0)
    return Planted(plant, play(plant, WORLD, LocalPool(), TOOLS))


def correction(k, code, thought=""):
    return Correction(k, Step("", ""), Step(thought, code))


@pytest.mark.parametrize(
    ("k", "code", "right"),
    [
        (2, "Be = Ba - 3\nprint(Be)", True),
        (2, "print(5 - 3)", True),  # in the state before the step it prints what is asked for next
        (2, "print(Ba - 3", False),
        (2, "Be = Ba - 4\nprint(Be)", False),
        (2, "Bi = (Ba - 3) * 4\nprint(Bi)", False),  # works ahead
        (2, "print(5)", False),  # found already
        (2, "final_answer_print(8)", False),  # right, but nothing before establishes it
        (1, "Ba = 5\nprint(Ba)", True),  # too early, and harmless
        (3, "Bi = 2 * 4\nprint(Bi)", False),  # after the error, which stays
        (3, "Be = Ba - 3\nprint(Be)", False),
    ],
)
def test_a_correction_is_right_if_it_prints_what_is_to_be_found_next(k, code, right):
    assert judge(made(), correction(k, code), WORLD, LocalPool(), TOOLS)[0] is right


def test_the_last_step_may_be_corrected_to_the_answer():
    late = made(4, 4, {4: ("Answer", "final_answer_print(Be)")}, "wrong_operand")
    assert judge(late, correction(4, "final_answer_print(Bi)"), WORLD, LocalPool(), TOOLS) == (True, "8")
    assert judge(late, correction(4, "final_answer_print(Ba)"), WORLD, LocalPool(), TOOLS) == (False, "5")


def test_a_plan_is_right_in_the_gold_plans_words():
    other = parse(QUESTION.replace("has Bi?", "has Be?"), WORLD)
    wrong = made(0, 0, {}, "wrong_plan", other)
    assert wrong.attempt.answer == "2"
    assert judge(wrong, correction(0, "", "Plan: compute Bi"), WORLD, LocalPool(), TOOLS) == (True, None)
    assert judge(wrong, correction(0, "", "Plan: compute Be"), WORLD, LocalPool(), TOOLS) == (False, None)
    assert not judge(wrong, correction(1, "Ba = 5\nprint(Ba)"), WORLD, LocalPool(), TOOLS)[0], "the plan stays wrong"


def test_luck_is_located_by_definition_and_corrected_at_either_turn():
    wrong = {1: ("Find Ba", "Ba = 9 - 4\nprint(Ba)"), 3: ("Find Bi", "Bi = Be + 4\nprint(Bi)")}
    lucky = made(1, 3, wrong, "lucky_value")
    assert [step.observation for step in lucky.attempt.steps] == ["5", "2", "6", "6"]
    at_luck, at_lapse = correction(1, "Ba = 5\nprint(Ba)"), correction(3, "Bi = Be * 4\nprint(Bi)")
    found = [examine(lucky, said, WORLD, LocalPool(), TOOLS) for said in (at_luck, at_lapse)]
    assert [finding.right for finding in found] == [True, True]
    of_luck = rates(found)
    assert of_luck["located"]["mean"] == of_luck["late"]["mean"] == of_luck["named_first_wrong_value"]["mean"] == 0.5
    assert summary(found)["all"]["n"] == 0, "a matter of definition is in no total"


def test_failures_are_named_and_a_dead_teacher_is_no_miss():
    said = [
        *(correction(2, "print(5 - 3)"), correction(1, "print(0)"), correction(3, "print(1)"), Right()),
        *(Failure("no_wrong_step"), Failure("rewrite_identical", "", 2), Failure("infrastructure", "down")),
    ]
    found = rates([examine(made(), one, WORLD, LocalPool(), TOOLS) for one in said])
    counts = {name: (of["count"], of["n"]) for name, of in found.items() if isinstance(of, dict) and "count" in of}
    assert counts == {
        "located": (2, 6), "early": (1, 6), "late": (1, 6), "no_turn": (2, 6), "named_first_wrong_value": (2, 6),
        "corrections_right": (1, 3), "right_throughout": (1, 6),
    }  # fmt: skip
    assert found["failures"] == {"judged_right": 1, "no_wrong_step": 1, "rewrite_identical": 1}
    assert found["infrastructure"] == 1
    assert rates([])["located"] is None
    assert audit.table(summary([])).iloc[0]["located"] == "–"


def test_a_teacher_that_always_blames_the_first_step_is_early_where_the_error_is_later():
    def reply(request):
        text = request.messages[-1].content
        return step_text("", "print(1)") if "<wrong" in text else json.dumps({"step": 1, "analysis": ""})

    teacher = Teacher(ScriptedAsyncEngine(reply), step=Sampling(), judge=Sampling())
    plants = [made(k, k, {k: ("x", "print(77)")}, "crash") for k in (1, 2, 3)]
    reviews = teacher.review([plant.attempt for plant in plants])
    found = [examine(p, r, WORLD, LocalPool(), TOOLS) for p, r in zip(plants, reviews, strict=True)]
    assert [(f.k, f.predicted) for f in found] == [(1, 1), (2, 1), (3, 1)]
    assert rates(found)["early"]["count"] == 2


def untimed(rows):
    """Rows without the seconds that a step took."""
    for row in rows:
        for step in row["attempt"]["steps"]:
            del step["seconds"]
    return rows


def test_the_served_oracle_through_the_real_path(tmp_path):
    audit.main([*MICRO, "--per-mutation", "4", "--seed", "3", "--out", str(tmp_path)])
    shares = json.loads((tmp_path / "audit.json").read_text())["shares"]
    assert set(shares) == {"all", *EVERY}
    assert shares["all"]["n"] == 24
    assert shares["all"]["located"]["mean"] == shares["all"]["right_throughout"]["mean"] == 1
    assert shares["lucky_value"]["located"]["mean"] == 0, "it judges by what was printed"
    assert shares["lucky_value"]["named_first_wrong_value"]["mean"] == 1
    rows = read_rows(tmp_path / "audit.jsonl")
    assert len(rows) == 28
    assert all(row["attempt"]["answer"] for row in rows)
    assert "MICRO-WORLD" in (tmp_path / "audit.md").read_text()
    assert (tmp_path / "confusion.csv").read_text().startswith("true,0,1,")
    for suffix in ("pdf", "png"):
        assert (tmp_path / f"confusion.{suffix}").stat().st_size > 5_000

    (replies,) = tmp_path.glob("work/replies.*.jsonl")
    paid = replies.read_bytes()
    audit.main([*MICRO, "--per-mutation", "4", "--seed", "3", "--out", str(tmp_path)])
    assert untimed(read_rows(tmp_path / "audit.jsonl")) == untimed(rows)
    assert replies.read_bytes() == paid, "no reply is paid for twice"


def test_a_degraded_oracle_is_found_out_in_a_world_of_long_episodes(tmp_path):
    config = tmp_path / "worse.yaml"
    config.write_text("models: {oracle: {accuracy: 0.0}}\n")
    options = ["--overlay", str(config), "--world", "micro_long", "--mutation", "crash", "--mutation", "wrong_hop"]
    audit.main([*MICRO, *options, "--per-mutation", "6", "--out", str(tmp_path / "out")])
    shares = json.loads((tmp_path / "out/audit.json").read_text())["shares"]
    assert set(shares) == {"all", "crash", "wrong_hop"}
    assert shares["all"]["located"]["mean"] == shares["all"]["right_throughout"]["mean"] == 0


def test_a_teacher_that_is_down_is_one_line_and_no_score(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    config = tmp_path / "down.yaml"
    entry = "{engine: endpoint, url: 'http://127.0.0.1:9/v1', retries: 0, timeout_s: 2}"
    config.write_text(f"models: {{down: {entry}}}\n")
    options = ["--overlay", str(config), "--model", "down", "--mutation", "crash", "--per-mutation", "2"]
    with pytest.raises(InfrastructureError, match="audit: down reviewed nothing: ") as caught:
        audit.main([*MICRO, *options, "--out", str(tmp_path / "out")])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out/audit.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "orcale"], "--model: unknown model 'orcale'; did you mean 'oracle'?"),
        (["--model", "student"], "--model: 'student' must be served over HTTP"),
        (["--per-mutation", "0"], "--per-mutation: at least 1, not 0"),
        (["--overlay", "nowhere.yaml"], "nowhere.yaml: no such config file"),
    ],
)
def test_bad_input_is_one_line(tmp_path, options, message):
    with pytest.raises(ScoreError, match=re.escape(message)) as caught:
        audit.main([*MICRO, *options, "--out", str(tmp_path)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n"])
def test_a_file_that_is_no_config_is_one_line(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ScoreError, match=r"bad.yaml: (not YAML|a config is a mapping)") as caught:
        read_merged([tmp_path / "bad.yaml"])
    assert "\n" not in str(caught.value)


def test_a_right_rewrite_is_right_in_every_benchmark():
    for name in ("math4", "hop3", "deep12", "deep33"):
        (task,) = make_tasks(name, "train", 1)
        graph = parse(task.question, WORLD)
        turns = right_turns(graph)
        for k in range(1, len(turns) + 1):
            plant = Plant(task, "crash", k, k, graph, {k: ("", "nothing(")}, 0)
            broken = Planted(plant, play(plant, WORLD, LocalPool(), TOOLS))
            fix = Correction(k, Step("", ""), Step(*turns[k - 1], text=step_text(*turns[k - 1])))
            assert judge(broken, fix, WORLD, LocalPool(), TOOLS)[0], (name, k)
    assert plan_text(graph.plan) == broken.attempt.plan_text
