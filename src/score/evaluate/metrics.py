"""Rules that compare an answer text with gold answers. Pure text; no model is ever asked here (`score.judge`).

    math     math-verify on the content of the last \\boxed{}, then normalised strings
    f1       token F1, best over aliases
    judge    1 on a normalised exact match, else undecided: a judge model has to say
    exact    trimmed text, or equal numbers (micro-world)

Answer texts come in LaTeX as often as not, so every rule but `exact` looks inside the last \\boxed{} first.
"""

from __future__ import annotations

import functools
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from score.evaluate.mathverify import Verifier
from score.evaluate.plain import apart

Metric = Literal["math", "f1", "judge", "exact"]
Normalisation = Literal["squad", "arpo"]


class Equality(Protocol):
    """What compares two texts as mathematics (`score.evaluate.mathverify.Verifier`)."""

    def equal(self, prediction: str, golds: Sequence[str]) -> bool: ...


_ARTICLES = ("a", "an", "the")
_TEXT_COMMANDS = re.compile(r"\\(?:text|mathrm|textbf|mbox|mathbf)\s*\{([^{}]*)\}")
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_NUMBER = re.compile(r"[-+]?(\d[\d,]*\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
_NUMBER_AND_UNIT = re.compile(
    r"\\?\$?\s*([-+]?[\d.,]*\d)\s+(?!pi\b|sin|cos|tan|cot|log|ln|exp|sqrt|arc)[a-zA-Z]{2,}( [a-zA-Z]+)*\.?"
)


def decide(
    metric: Metric,
    prediction: str | None,
    golds: Sequence[str],
    normalisation: Normalisation = "squad",
    verifier: Equality | None = None,
) -> float | None:
    """The score of an answer in [0, 1]; None where rules cannot decide. No answer at all (None) scores 0.

    `normalisation` is F1's; whether a judge is needed does not depend on it. `verifier` is math's, in place of one that
    this process shares.
    """
    if prediction is None or not prediction.strip():
        return 0.0
    if metric == "math":
        return float(math_equal(prediction, golds, verifier))
    if metric == "f1":
        return token_f1(prediction, golds, normalisation)
    if metric == "exact":
        return float(exact(prediction, golds))
    return 1.0 if exact_match(prediction, golds) else None


# Mathematics


def math_equal(prediction: str, golds: Sequence[str], verifier: Equality | None = None) -> bool:
    """Whether `prediction` equals any gold as mathematics (fractions, intervals, sets, percent, text in LaTeX).

    math-verify decides it, but for plain numbers of different value (`score.evaluate.plain`). The fallback, for what
    math-verify cannot read: equal strings after removing LaTeX decoration, and a number with a
    unit of plain words against a bare number. A comparison that takes longer than the verifier's limit is not equal.
    """
    prediction, golds = unboxed(prediction), [unboxed(gold) for gold in golds]
    unit = _NUMBER_AND_UNIT.fullmatch(prediction)
    guesses = [prediction] + ([unit.group(1)] if unit else [])
    plain = {_plain(gold) for gold in golds}
    if any(_plain(guess) in plain for guess in guesses):
        return True
    if all(map(_INTEGER.fullmatch, (prediction, *golds))):  # most answers of AIME and MATH500
        return int(prediction) in map(int, golds)
    if all(apart(guess, gold) for guess in guesses for gold in golds):
        return False
    verifier = verifier or _default_verifier()
    return any(verifier.equal(guess, golds) for guess in guesses)


@functools.lru_cache(maxsize=1 << 14)  # answers repeat, and golds come with each of them
def unboxed(text: str) -> str:
    """The content of the last balanced \\boxed{...} without text commands around all of it, or the trimmed text."""
    content = _last_boxed(text)
    content = (text if content is None else content).strip()
    whole = _TEXT_COMMANDS.fullmatch(content)
    return whole.group(1).strip() if whole else content


def _last_boxed(text: str) -> str | None:
    if "boxed" not in text:
        return None
    for opening in reversed(list(re.finditer(r"\\f?boxed\s*\{", text))):
        depth = 1
        for i in range(opening.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[i], 0)
            if depth == 0:
                return text[opening.end() : i]
    return None


@functools.lru_cache(maxsize=1 << 14)
def _plain(answer: str) -> str:
    """An answer without LaTeX decoration and spaces, a word also without case: for equality only."""
    answer = _TEXT_COMMANDS.sub(r"\1", answer)
    answer = re.sub(r"\\(left|right|displaystyle|[!,;: ])|\\?\$|\s", "", answer)
    answer = answer.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    answer = answer.rstrip(".")
    return answer.lower() if len(answer) > 2 and answer.isalpha() else answer


@functools.cache
def _default_verifier() -> Verifier:
    return Verifier()


# Short texts


def token_f1(prediction: str, golds: Sequence[str], normalisation: Normalisation = "squad") -> float:
    """Harmonic mean of token precision and recall, best over golds."""
    tokens = _NORMALISATIONS[normalisation]
    guess = tokens(unboxed(prediction))
    return max((_f1(guess, tokens(gold)) for gold in golds), default=0.0)


def exact_match(prediction: str, golds: Sequence[str], normalisation: Normalisation = "squad") -> bool:
    """Whether the normalised prediction equals any normalised gold."""
    tokens = _NORMALISATIONS[normalisation]
    return tokens(unboxed(prediction)) in [tokens(unboxed(gold)) for gold in golds]


def canonical(metric: Metric, answer: str) -> str:
    """An answer as it is compared for sameness with other answers: unboxed, and normalised as its metric takes it.

    Signs and points matter in mathematics; equal forms (0.5 and 1/2) are different texts.
    """
    if metric in ("math", "exact"):
        return _plain(unboxed(answer))
    return " ".join(_squad_tokens(unboxed(answer))) or unboxed(answer)


def _f1(guess: Sequence[str], gold: Sequence[str]) -> float:
    common = sum((Counter(guess) & Counter(gold)).values())
    return 2 * common / (len(guess) + len(gold)) if common else 0.0


@functools.lru_cache(maxsize=1 << 14)
def _squad_tokens(text: str) -> tuple[str, ...]:
    """SQuAD's normalisation: lower case, no ASCII punctuation, no articles."""
    return _without_articles(text.lower().translate(str.maketrans("", "", string.punctuation)).split())


def _arpo_tokens(text: str) -> tuple[str, ...]:
    """What ARPO's scorer does: lower case and no articles, but punctuation stays."""
    return _without_articles(text.lower().split())


def _without_articles(tokens: Sequence[str]) -> tuple[str, ...]:
    """An answer that is nothing but an article stays: option "A" of a multiple-choice question is one."""
    return tuple(token for token in tokens if token not in _ARTICLES) or tuple(tokens)


_NORMALISATIONS: dict[str, Callable[[str], tuple[str, ...]]] = {"squad": _squad_tokens, "arpo": _arpo_tokens}


# Micro-world


def exact(prediction: str, golds: Sequence[str]) -> bool:
    """Equal trimmed texts, or both numbers of the same value."""
    prediction = prediction.strip()
    return any(prediction == gold.strip() or _same_number(prediction, gold.strip()) for gold in golds)


def _same_number(left: str, right: str) -> bool:
    if not (_NUMBER.fullmatch(left) and _NUMBER.fullmatch(right)):
        return False
    return float(left.replace(",", "")) == float(right.replace(",", ""))
