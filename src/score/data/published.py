"""The published trajectory files as `Trajectory` and back, unchanged.

(a) conversations  `{"conversations": [{"from": "human" | "gpt", "value": ...}, ...]}`: the SFT files, that is
    `*_llamafactory.json` and `BC_init_math.json`. No gold answer; they end on the answering turn, unobserved.
(b) raw records    `{"steps", "original_task_info", "evaluation_result", "first_thought" | "repair_steps", ...}`: what
    the data generation wrote (`*_trajectories.jsonl`). The plan is a field of its own or the first step.

What has no place in a `Trajectory` is kept under `meta["published"]`, so that the way back gives equal JSON objects.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from score.agent import protocol
from score.data.questions import question_id
from score.errors import ScoreError
from score.records import Step, StopReason, Task, Trajectory

Json = dict[str, Any]

_SPEAKERS = {"user": "human", "assistant": "gpt"}


def from_conversation(record: Json, index: int = 0, dataset: str = "published") -> Trajectory:
    """A conversation record as a trajectory; `index` is its place in the file, for error messages and provenance.

    A published text that deviates from the canonical rendering is kept verbatim in `plan_text` and `Step.text`.
    """
    values = _alternating_values(record, index)
    question, plan_text, *turns = values
    plan = protocol.parse_plan(plan_text)
    observations = [value.removeprefix("Observation: ") for value in turns[2::2]] + [None]
    steps = tuple(_step(text, seen) for text, seen in zip(turns[1::2], observations, strict=False))
    trajectory = Trajectory(
        task=Task(question_id(question), question, (), dataset),
        plan=plan,
        plan_text=None if plan is not None and plan_text == protocol.plan_text(plan) else plan_text,
        steps=steps,
        stop=_stop_of(steps),
    )
    rendered = [message.content for message in protocol.trajectory_messages(trajectory)]
    published = {
        "form": "conversation",
        "index": index,
        "verbatim": {str(i): value for i, value in enumerate(values) if value != rendered[i]},
        "record": {name: value for name, value in record.items() if name != "conversations"},
    }
    return dataclasses.replace(trajectory, meta={"published": published})


def to_conversation(trajectory: Trajectory) -> Json:
    """The conversation record of a trajectory, published or our own."""
    published = trajectory.meta.get("published", {})
    verbatim = published.get("verbatim", {})
    turns = [
        {"from": _SPEAKERS[message.role], "value": verbatim.get(str(i), message.content)}
        for i, message in enumerate(protocol.trajectory_messages(trajectory))
    ]
    return {"conversations": turns} | published.get("record", {})


def from_raw(record: Json, index: int = 0, dataset: str = "published") -> Trajectory:
    """A raw record as a trajectory.

    Steps that the published run recorded as errors of its services hold no turn (hazard 10): they stay in `meta`, and
    an episode that ends in one has no outcome.
    """
    raw_steps = record["steps"]
    plan_step = _plan_step(record)
    turns = [raw for raw in raw_steps if "thought" in raw and raw is not plan_step]
    stop = _stop_of_raw(raw_steps)
    info = record["original_task_info"]
    return Trajectory(
        task=Task(
            id=question_id(info["question"]),
            question=info["question"],
            answers=(info["true_answer"],),
            dataset=dataset,
            meta=_without(info, "question", "true_answer"),
        ),
        plan=plan_step["thought"] if plan_step else record.get("first_thought"),
        steps=tuple(Step(raw["thought"], raw["code"], raw["observation"]) for raw in turns),
        stop=stop,
        answer=turns[-1]["observation"].strip() if stop is StopReason.ANSWERED else None,
        meta={
            "published": {
                "form": "raw",
                "index": index,
                "steps": [_rest_of_step(raw, raw is plan_step) for raw in raw_steps],
                "record": _without(record, "steps", "original_task_info", "first_thought"),
            }
        },
    )


def to_raw(trajectory: Trajectory) -> Json:
    """The raw record that `from_raw` read."""
    published = trajectory.meta["published"]
    turns = iter(trajectory.steps)
    steps, plan_is_field = [], trajectory.plan is not None
    for rest in published["steps"]:
        kind, fields = rest["kind"], rest["fields"]
        if kind == "plan":
            plan_is_field = False
            fields = {"thought": trajectory.plan} | fields
        elif kind == "turn":
            step = next(turns)
            fields = {"thought": step.thought, "code": step.code, "observation": step.observation} | fields
        steps.append(fields)
    task = trajectory.task
    info = {"question": task.question, "true_answer": task.answers[0]} | task.meta
    first_thought = {"first_thought": trajectory.plan} if plan_is_field else {}
    return {"steps": steps, "original_task_info": info} | first_thought | published["record"]


def _alternating_values(record: Json, index: int) -> list[str]:
    """The turns' texts. Raises `ScoreError` unless they alternate from a human question to a last gpt turn."""
    turns = record.get("conversations", [])
    speakers = [turn.get("from") for turn in turns]
    if len(turns) % 2 or not turns or speakers != ["human", "gpt"] * (len(turns) // 2):
        raise ScoreError(f"record {index}: turns must alternate human, gpt and end on gpt; found {speakers}")
    return [turn["value"] for turn in turns]


def _step(text: str, observation: str | None) -> Step:
    parsed = protocol.parse_step(text)
    if parsed is None:
        return Step("", "", observation, error="parse_error", text=text)
    return Step(*parsed, observation, text=None if text == protocol.step_text(*parsed) else text)


def _stop_of(steps: tuple[Step, ...]) -> StopReason:
    answered = bool(steps) and "final_answer_print" in steps[-1].code
    return StopReason.ANSWERED if answered else StopReason.MAX_STEPS


def _stop_of_raw(raw_steps: list[Json]) -> StopReason:
    last = raw_steps[-1] if raw_steps else {}
    if "thought" not in last:
        return StopReason.INFRASTRUCTURE_ERROR
    return StopReason.ANSWERED if last.get("is_finished") else StopReason.MAX_STEPS


def _plan_step(record: Json) -> Json | None:
    """The first step, where it is the plan: mentored runs store it there, as a step without code."""
    first = record["steps"][0] if record["steps"] else {}
    return first if "first_thought" not in record and first.get("code") == "" else None


def _rest_of_step(raw: Json, is_plan: bool) -> Json:
    """What `to_raw` needs beside the `Trajectory` to write this step again."""
    if is_plan:
        return {"kind": "plan", "fields": _without(raw, "thought")}
    if "thought" in raw:
        return {"kind": "turn", "fields": _without(raw, "thought", "code", "observation")}
    return {"kind": "error", "fields": raw}


def _without(record: Json, *names: str) -> Json:
    return {name: value for name, value in record.items() if name not in names}
