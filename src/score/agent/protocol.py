"""The agent's one chat protocol: tags, messages, parsing. Pure text; the published trajectories use exactly this
format.

    user       question
    assistant  <first_thought>plan</first_thought>
    user       Observation: None
    assistant  <thought>...</thought><code>...</code>
    user       Observation: <what the code printed>
    ...        until executed code calls final_answer_print(x)

One parser serves rollout, correction, RL and evaluation (the published code has a greedy and a non-greedy one, and
ends an episode when the *thought* mentions final_answer_print; hazards 8, 9).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from score.records import Step, Trajectory

NO_OUTPUT = "None"
"""What the model reads after its plan, and after code that prints nothing."""

_FIRST_THOUGHT = re.compile(r"<first_thought>(.*?)</first_thought>", re.DOTALL)
_THOUGHT = re.compile(r"<thought>(.*?)</thought>", re.DOTALL)
_CODE = re.compile(r"<code>(.*?)</code>", re.DOTALL)

STEP_HELP = "Error: expected <thought>...</thought><code>...</code>."


@dataclass(frozen=True)
class Message:
    """One chat message. `token_ids` are an assistant message's ids as sampled, without the end-of-turn token."""

    role: Literal["system", "user", "assistant"]
    content: str
    token_ids: tuple[int, ...] | None = None

    def chat(self) -> dict[str, str]:
        return {"role": self.role, "content": self.content}


def plan_text(plan: str) -> str:
    return f"<first_thought>{plan}</first_thought>"


def step_text(thought: str, code: str) -> str:
    return f"<thought>{thought}</thought><code>{code}</code>"


def observation_text(observation: str | None) -> str:
    return f"Observation: {observation or NO_OUTPUT}"


def parse_plan(completion: str) -> str | None:
    """The plan of a first turn, or None if the completion has no closed <first_thought> block."""
    match = _FIRST_THOUGHT.search(completion)
    return match and match.group(1)


def parse_step(completion: str) -> tuple[str, str] | None:
    """(thought, code) of the first closed block of each kind, or None without a code block.

    A missing thought is an empty one: the code can run, and nothing is gained by refusing it.
    """
    code = _CODE.search(completion)
    if code is None:
        return None
    thought = _THOUGHT.search(completion)
    return (thought.group(1) if thought else ""), code.group(1)


def step_message(step: Step) -> Message:
    """A step as the assistant message that it was: verbatim if it was sampled, else in canonical form."""
    return Message(
        "assistant", step.text if step.text is not None else step_text(step.thought, step.code), step.token_ids
    )


def messages(
    question: str,
    plan: Message | str | None = None,
    steps: tuple[Step, ...] = (),
    *,
    system: str | None = None,
    final_observation: bool = False,
) -> list[Message]:
    """The conversation of an episode so far.

    Args:
        plan: the first thought (canonical text) or its message as sampled; None before it exists.
        steps: executed steps; the observation of the last one is appended only if `final_observation`, since the
            published data ends on the answering turn.
    """
    conversation = [Message("system", system)] if system else []
    conversation.append(Message("user", question))
    if plan is None:
        return conversation
    conversation.append(Message("assistant", plan_text(plan)) if isinstance(plan, str) else plan)
    if steps or final_observation:
        conversation.append(Message("user", observation_text(None)))
    for i, step in enumerate(steps):
        conversation.append(step_message(step))
        if i + 1 < len(steps) or final_observation:
            conversation.append(Message("user", observation_text(step.observation)))
    return conversation


def plan_message(trajectory: Trajectory) -> Message | None:
    """The plan turn of a trajectory, with its sampled ids if it has them; None if there was no plan turn at all."""
    if trajectory.plan_text is not None:
        return Message("assistant", trajectory.plan_text, trajectory.plan_token_ids)
    return None if trajectory.plan is None else Message("assistant", plan_text(trajectory.plan))


def trajectory_messages(trajectory: Trajectory, *, system: str | None = None) -> list[Message]:
    """The whole episode as it is trained on: it ends on the last assistant turn."""
    return messages(trajectory.task.question, plan_message(trajectory), trajectory.steps, system=system)
