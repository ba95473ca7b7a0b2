"""Does a teacher's text give the gold answer away? A measurement of text: it sees what is written, not how it is meant.

The gold answer counts as given away if a text holds it although nothing that the student had does: question, plan, and
the turns before k with what they printed. A short answer (a digit, "yes") is also met by chance; an answer that is
written in another form (0.5 for 1/2) is not seen.
"""

from __future__ import annotations

import re

from score.evaluate.metrics import unboxed
from score.records import Trajectory

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_DECORATION = re.compile(r"\\(?:boxed|text|mathrm|textbf|mbox|mathbf)\b|[{}$]")


def given_away(attempt: Trajectory, k: int, text: str) -> bool:
    """Does `text` hold a gold answer, any alias, that nothing before turn k of the attempt holds?"""
    before = "\n".join(
        [attempt.task.question, (attempt.plan_text or attempt.plan or "") if k > 0 else ""]
        + [f"{s.text or s.thought}\n{s.code}\n{s.observation or ''}" for s in attempt.steps[: max(k - 1, 0)]]
    )
    golds = [gold for answer in attempt.task.answers if (gold := _plain(unboxed(answer)))]
    return any(_holds(text, gold) for gold in golds) and not any(_holds(before, gold) for gold in golds)


def _holds(text: str, gold: str) -> bool:
    """As whole words or a whole number: 5 is neither in 15 nor in 5.2. Languages without spaces have no such bounds."""
    return re.search(rf"(?<![0-9a-z_])(?<!\d\.){re.escape(gold)}(?![0-9a-z_])(?!\.\d)", _plain(text)) is not None


def _plain(text: str) -> str:
    """Lower case, single spaces, no LaTeX decoration, no thousands separators."""
    return " ".join(_DECORATION.sub(" ", _THOUSANDS.sub("", text)).casefold().split())
