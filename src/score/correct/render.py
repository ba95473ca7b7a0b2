"""A trajectory as the text that a teacher reads: numbered turns, the plan being turn 0."""

from __future__ import annotations

from collections.abc import Sequence

from score.agent import protocol
from score.prompts import Markup, material
from score.records import Step


def render_turn(text: str, number: int, observation: str | None = None) -> Markup:
    shown = "" if observation is None else f"<observation>{material(observation or protocol.NO_OUTPUT)}</observation>"
    return Markup(f'<turn n="{number}">{material(text)}{shown}</turn>')


def render_trajectory(plan_text: str | None, steps: Sequence[Step]) -> Markup:
    """Turns as `<turn n="1"><thought>..</thought><code>..</code><observation>..</observation></turn>`, one after
    another; no turn's text can end the turn."""
    turns = [] if plan_text is None else [render_turn(plan_text, 0)]
    turns += [
        render_turn(protocol.step_message(step).content, i, step.observation or "") for i, step in enumerate(steps, 1)
    ]
    return Markup("\n".join(turns))
