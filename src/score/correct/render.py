"""A trajectory as the text that a teacher reads: numbered turns, the plan being turn 0."""

from __future__ import annotations

from collections.abc import Sequence

from score.agent import protocol
from score.records import Step


def render_turn(text: str, number: int, observation: str | None = None) -> str:
    seen = "" if observation is None else f"<observation>{observation or protocol.NO_OUTPUT}</observation>"
    return f'<turn n="{number}">{text}{seen}</turn>'


def render_trajectory(plan_text: str | None, steps: Sequence[Step]) -> str:
    """Turns as `<turn n="1"><thought>..</thought><code>..</code><observation>..</observation></turn>`, one after
    another."""
    turns = [] if plan_text is None else [render_turn(plan_text, 0)]
    turns += [
        render_turn(protocol.step_message(step).content, i, step.observation or "") for i, step in enumerate(steps, 1)
    ]
    return "\n".join(turns)
