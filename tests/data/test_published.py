"""Published trajectories go into `Trajectory` and come back equal."""

import copy
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from score.agent import protocol
from score.data.published import from_conversation, from_raw, to_conversation, to_raw
from score.errors import ScoreError
from score.jsonl import read_rows
from score.records import StopReason, Trajectory


def conversation(*values):
    return {"conversations": [{"from": ("human", "gpt")[i % 2], "value": value} for i, value in enumerate(values)]}


CANONICAL = conversation(
    "How many?",
    "<first_thought>Count.</first_thought>",
    "Observation: None",
    "<thought>Add.</thought><code>print(1+1)</code>",
    "Observation: 2",
    "<thought>Answer.</thought><code>final_answer_print(2)</code>",
)


def test_a_conversation_becomes_plan_and_steps():
    trajectory = from_conversation(CANONICAL)
    assert trajectory.task.question == "How many?"
    assert (trajectory.plan, trajectory.plan_text) == ("Count.", None)
    assert [(s.thought, s.code, s.observation, s.text) for s in trajectory.steps] == [
        ("Add.", "print(1+1)", "2", None),
        ("Answer.", "final_answer_print(2)", None, None),
    ]
    assert trajectory.stop is StopReason.ANSWERED
    assert trajectory.meta["published"]["verbatim"] == {}
    assert to_conversation(trajectory) == CANONICAL


def test_deviating_texts_are_kept_verbatim():
    record = conversation(
        "Q", "no tags", "2", "<code>x=1</code> and so", "Observation: ", "<thought>only a thought</thought>"
    ) | {"system": "be brief"}
    trajectory = from_conversation(record)
    assert (trajectory.plan, trajectory.plan_text) == (None, "no tags")
    assert (trajectory.steps[0].code, trajectory.steps[0].text) == ("x=1", "<code>x=1</code> and so")
    assert trajectory.steps[1].error == "parse_error"
    assert trajectory.meta["published"]["verbatim"] == {"2": "2", "4": "Observation: "}
    assert to_conversation(trajectory) == record


fragments = st.sampled_from(["<thought>", "</thought>", "<code>", "</code>", "<first_thought>", "</first_thought>"])
texts = st.lists(fragments | st.text(max_size=5) | st.just("Observation: "), max_size=6).map("".join)


@given(st.integers(1, 5).flatmap(lambda n: st.lists(texts, min_size=2 * n, max_size=2 * n)))
def test_any_conversation_comes_back(values):
    record = conversation(*values)
    through_disk = Trajectory.from_json(json.loads(json.dumps(from_conversation(record).to_json())))
    assert to_conversation(through_disk) == record


@pytest.mark.parametrize("speakers", [["human"], ["gpt", "human"], ["human", "gpt", "human"], ["human", "human"], []])
def test_turns_out_of_order_are_an_error(speakers):
    with pytest.raises(ScoreError, match="record 7: turns must alternate"):
        from_conversation({"conversations": [{"from": s, "value": "x"} for s in speakers]}, index=7)


TASK = {"id": "t1", "question": "How many?", "true_answer": "2"}
TURN = {"thought": "Answer.", "code": "final_answer_print(2)", "observation": "2\n", "is_finished": True}
PLAN = {"thought": "Count.", "code": "", "observation": "None", "is_finished": False}
FAILED = {"error": "Internal Server Error", "node": "reasoning_node", "task_id": "t1", "timestamp": "12:00"}


def raw(steps, **fields):
    return {"timestamp": "1", "steps": steps, "original_task_info": TASK, "evaluation_result": "{}"} | fields


@pytest.mark.parametrize(
    ("record", "plan", "n_steps", "stop", "answer"),
    [
        (raw([TURN], first_thought="Count."), "Count.", 1, StopReason.ANSWERED, "2"),
        (raw([PLAN, TURN], repair_steps=[]), "Count.", 1, StopReason.ANSWERED, "2"),
        (raw([PLAN, TURN | {"is_finished": False}], is_hard_sample=True), "Count.", 1, StopReason.MAX_STEPS, None),
        (raw([PLAN, FAILED, TURN, FAILED]), "Count.", 1, StopReason.INFRASTRUCTURE_ERROR, None),
        (raw([FAILED]), None, 0, StopReason.INFRASTRUCTURE_ERROR, None),
        (raw([]), None, 0, StopReason.INFRASTRUCTURE_ERROR, None),
        (raw([TURN]), None, 1, StopReason.ANSWERED, "2"),
    ],
)
def test_raw_records(record, plan, n_steps, stop, answer):
    before = copy.deepcopy(record)
    trajectory = from_raw(record)
    assert (trajectory.plan, len(trajectory.steps), trajectory.stop, trajectory.answer) == (plan, n_steps, stop, answer)
    assert trajectory.task.answers == ("2",)
    through_disk = Trajectory.from_json(json.loads(json.dumps(trajectory.to_json())))
    assert to_raw(through_disk) == record == before


def published_files(official):
    records = {path: json.loads(path.read_text()) for path in sorted(official.rglob("*.json"))}
    files = {path: rows for path, rows in records.items() if "conversations" in rows[0]}
    return files | {path: read_rows(path) for path in sorted(official.rglob("*_trajectories.jsonl"))}


def test_every_published_trajectory_round_trips(official):
    """All rows of all files at hand: 1,200 + 75 + 24 + 63 conversations, 77 + 64 + 86 raw records."""
    n_rows = 0
    for path, records in published_files(official).items():
        read, write = (from_conversation, to_conversation) if path.suffix == ".json" else (from_raw, to_raw)
        for index, record in enumerate(records):
            trajectory = Trajectory.from_json(json.loads(json.dumps(read(record, index).to_json())))
            assert write(trajectory) == record, f"{path}: record {index}"
            n_rows += 1
    assert n_rows >= 1589


def test_published_conversations_are_canonical(official):
    """Not one published turn deviates from our renderer: the two formats are the same."""
    records = json.loads((official / "SFT/data/train/BC_init_math.json").read_text())
    trajectories = [from_conversation(record) for record in records]
    assert not any(trajectory.meta["published"]["verbatim"] for trajectory in trajectories)
    assert all(step.text is None for trajectory in trajectories for step in trajectory.steps)
    assert sum(trajectory.stop is StopReason.ANSWERED for trajectory in trajectories) == 1194


def test_the_two_published_forms_of_one_episode_agree(official):
    """The published converter drops a label such as "Thought:"; apart from that both forms give the same messages."""
    label = re.compile(r"(first[- ])?thought( prefix)?:", re.IGNORECASE)
    example = official / "MPS/output/example"
    by_question = {t.task.question: t for t in map(from_raw, read_rows(example / "math_bc_init_trajectories.jsonl"))}
    records = json.loads((example / "math_bc_init_trajectories_llamafactory.json").read_text())
    for record in records:
        ours = protocol.trajectory_messages(by_question[record["conversations"][0]["value"]])
        ours = ["".join(label.sub("", message.content).split()) for message in ours]
        assert ours == ["".join(label.sub("", turn["value"]).split()) for turn in record["conversations"]]
