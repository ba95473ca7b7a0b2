"""Which training questions are test questions, or nearly: found, dropped, listed and counted.

Two looks. *The same*: equal after normalisation (`score.data.questions.normalise`). *Nearly the same*: a share `near`
of the test question's character n-grams stands in the training question, which finds a test question with words put
before, behind or in place of a few others. A paraphrase in other words is not found.

In the published training questions a share of 0.8 finds ten pairs besides the equal ones: some ask the same thing, the
others are the same sentence about something else. Below it the latter follow by the hundred ("What nationality is the
director of film ..."). In a generated world all questions are made of the same sentences, so only equal ones count.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from score.data.questions import normalise
from score.records import Task

N = 13
"""Characters of an n-gram, of the normalised text."""
SHORTEST = 20
"""n-grams that a question must have to be compared by them; a shorter one is the same or it is another."""


@dataclass(frozen=True)
class Match:
    """A training question that holds a test question: `overlap` is 1 for equal ones, else the share of n-grams."""

    train: str
    test: str
    benchmark: str
    same: bool
    overlap: float = 1.0


@dataclass(frozen=True)
class Contamination:
    """All matches, in the order of the test questions; `near` is the share of n-grams that was looked for, if any."""

    matches: tuple[Match, ...]
    near: float | None = None

    @property
    def dropped(self) -> dict[str, list[str]]:
        """Training question -> the test questions that it holds."""
        by_train: dict[str, list[str]] = defaultdict(list)
        for match in self.matches:
            by_train[match.train].append(match.test)
        return dict(by_train)

    def found(self, benchmark: str | None = None, *, same: bool) -> list[str]:
        """Test questions that are in training, of one benchmark or all: equal ones, or only nearly equal ones."""
        matches = [match for match in self.matches if benchmark in (None, match.benchmark)]
        equal = {match.test: None for match in matches if match.same}
        return list(equal) if same else list(dict.fromkeys(m.test for m in matches if m.test not in equal))

    def to_json(self, tests: Mapping[str, Sequence[Task]]) -> dict[str, Any]:
        """What was found of each benchmark, and what was dropped for it; `nearly` is null if nobody looked for such."""
        looked = self.near is not None
        found = {
            name: {
                "questions": len(tasks),
                "found": self.found(name, same=True),
                "nearly": self.found(name, same=False) if looked else None,
                "too_short": sum(map(too_short, tasks)) if looked else None,
            }
            for name, tasks in tests.items()
        }
        return {"benchmarks": found, "matches": [asdict(match) for match in self.matches]}


def find_contamination(
    train: Sequence[Task], tests: Mapping[str, Sequence[Task]], near: float | None = None
) -> Contamination:
    """Compares every training question with every test question, given by benchmark.

    One pass over the training questions with an index of the test questions' n-grams: seconds for 35,000 x 2,400.

    Args:
        near: share of a test question's n-grams from which on a training question is nearly the same; None: only equal
            ones are looked for.
    """
    index = _Index([(name, task) for name, tasks in tests.items() for task in tasks], near)
    matches = [match for task in train for match in index.matches(task)]
    order = {(name, task.id): i for i, (name, task) in enumerate(index.tests)}
    return Contamination(tuple(sorted(matches, key=lambda match: order[match.benchmark, match.test])), near)


def too_short(task: Task) -> bool:
    """Whether a test question has too few n-grams to be compared by them."""
    return len(_grams(normalise(task.question))) < SHORTEST


class _Index:
    """Test questions by their normalised text and by their n-grams."""

    def __init__(self, tests: Sequence[tuple[str, Task]], near: float | None) -> None:
        self.tests, self.near = tests, near
        self.texts = [normalise(task.question) for _, task in tests]
        self.sizes = [len(_grams(text)) for text in self.texts]
        self.equal: dict[str, list[int]] = defaultdict(list)
        self.holding: dict[str, list[int]] = defaultdict(list)
        for i, text in enumerate(self.texts):
            if text:  # two questions without a letter or digit are not the same question
                self.equal[text].append(i)
            if near is not None and self.sizes[i] >= SHORTEST:
                for gram in _grams(text):
                    self.holding[gram].append(i)

    def matches(self, task: Task) -> Iterator[Match]:
        """The test questions that a training question holds."""
        text = normalise(task.question)
        same = self.equal.get(text, [])
        for i in same:
            yield self._match(task, i, True, 1.0)
        if self.near is None:
            return
        shared = Counter(i for gram in _grams(text) for i in self.holding.get(gram, ()))
        for i, count in shared.items():
            if count >= self.near * self.sizes[i] and i not in same:
                yield self._match(task, i, False, round(count / self.sizes[i], 3))

    def _match(self, task: Task, i: int, same: bool, overlap: float) -> Match:
        name, test = self.tests[i]
        return Match(task.id, test.id, name, same, overlap)


def _grams(text: str) -> set[str]:
    return {text[i : i + N] for i in range(len(text) - N + 1)}


def report(contamination: Contamination, tests: Mapping[str, Sequence[Task]], n_train: int) -> str:
    """The contamination of a training set in Markdown."""
    looked, total = contamination.near is not None, sum(map(len, tests.values()))
    same, near = (len(contamination.found(same=same)) for same in (True, False))
    short = sum(too_short(task) for tasks in tests.values() for task in tasks) if looked else 0
    nearly = (
        f"Of {near} more they hold at least {contamination.near:.0%} of the n-grams of {N} characters; {short} have "
        f"fewer than {SHORTEST} and were compared as a whole only."
        if looked
        else "Nearly equal ones were not looked for (`data.near_duplicate` is not set)."
    )
    lines = [
        "# Test questions in the training questions",
        "",
        f"{same} of {total} test questions stand in the {n_train} distinct training questions (equal after NFKC, lower "
        f"case and removal of all but letters and digits). {nearly} {len(contamination.dropped)} training questions "
        "were dropped for it.",
        "",
        "| benchmark | questions | in training | nearly |",
        "| --- | ---: | ---: | ---: |",
        *(_line(contamination, name, tasks) for name, tasks in tests.items()),
        "",
        "Dropped training questions and the test questions that they hold; where they are not equal, with the share of "
        "the test question's n-grams that was found:",
        "",
        *(
            f"- `{match.train}`: `{match.test}`" + ("" if match.same else f" ({match.overlap:.2f})")
            for match in contamination.matches
        ),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _line(contamination: Contamination, name: str, tasks: Sequence[Task]) -> str:
    near = "–" if contamination.near is None else len(contamination.found(name, same=False))
    return f"| {name} | {len(tasks)} | {len(contamination.found(name, same=True))} | {near} |"
