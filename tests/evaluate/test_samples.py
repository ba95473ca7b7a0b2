"""Several samples of a question: pass@k against counting, the vote, and how they go through evaluation and scoring."""

from itertools import combinations
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluate.test_score import TASKS, episode, scored
from fakes import LocalPool, ScriptedEngine
from score.attempts import Acting
from score.config import read_merged
from score.evaluate.__main__ import attempt, samples
from score.evaluate.metrics import canonical
from score.evaluate.samples import Drawn, majority, pass_at, summary
from score.jsonl import ResumableRows, write_rows

OVERLAY = """
evaluation: {n_samples: 2, n_samples_of: {hop2: 3}, as_published: %s}
sampling: {evaluate: {temperature: 0.6, max_new_tokens: 24}}
"""


@given(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=1, max_size=6), st.data())
def test_pass_at_k_is_the_best_of_k_on_average(scores, data):
    k = data.draw(st.integers(1, len(scores)))
    subsets = list(combinations(scores, k))
    assert pass_at(k, scores) == pytest.approx(fmean(max(subset) for subset in subsets))


@pytest.mark.parametrize(
    ("answers", "scores", "expected"),
    [
        (("7", "8", "8"), (0.0, 1.0, 1.0), 1.0),
        (("-5", "5", "5"), (0.0, 1.0, 1.0), 1.0),
        (("7", "8", "9"), (0.0, 1.0, 1.0), 0.0),
        ((None, "8", None), (0.0, 1.0, 0.0), 1.0),
        ((None, "", None), (0.0, 0.0, 0.0), 0.0),
    ],
)
def test_the_vote(answers, scores, expected):
    assert majority(Drawn(scores, answers)) == expected


@pytest.mark.parametrize(
    ("metric", "one", "other", "same"),
    [
        ("math", "-5", "5", False), ("math", "1/2", "12", False), ("math", "\\boxed{7}", "$7$", True),
        ("f1", "The Nile.", "nile", True), ("judge", "A, B", "a b", True), ("exact", "3.5", "35", False),
    ],
)  # fmt: skip
def test_what_counts_as_one_answer_in_a_vote_is_a_matter_of_the_metric(metric, one, other, same):
    assert (canonical(metric, one) == canonical(metric, other)) is same


def test_a_question_with_a_sample_that_has_no_score_is_in_no_summary():
    whole, torn = Drawn((1.0, 0.0), ("1", "2")), Drawn((1.0, None), ("1", "2"))
    found = summary([whole, torn])
    assert (found["questions"], found["samples"], found["mean"]) == (1, 2, 0.5)
    assert (found["pass@1"], found["pass@2"]) == (0.5, 1.0)
    assert summary([torn]) == {"questions": 0}


def test_samples_are_averaged_per_question_and_one_that_is_missing_makes_it_incomplete():
    drawn = [episode(TASKS[0], "0"), episode(TASKS[0], "9", sample=1), episode(TASKS[1], "1")]
    scores = scored(drawn, tasks=TASKS[:2])
    assert [row.samples for row in scores.rows] == [(1.0, None), (1.0, None)]
    assert [row.score for row in scores.rows] == [1.0, 1.0]
    assert not scores.complete


class Agent:
    """An agent whose replies are a function of the request, on two micro-benchmarks of one question each."""

    def __init__(self, tmp_path, as_published, reply):
        overlay = tmp_path / "o.yaml"
        overlay.write_text(OVERLAY % as_published)
        self.config = read_merged([Path("config.yaml"), Path("configs/micro.yaml"), overlay])
        self.paths = [tmp_path / f"{name}.jsonl" for name in ("math2", "hop2")]
        for path, task in zip(self.paths, TASKS, strict=False):
            write_rows(path, [task.to_json()])
        self.engine = ScriptedEngine(reply)
        self.acting = Acting(self.config, "teacher", 0, "digest", self.engine, LocalPool(), {})
        self.rows = ResumableRows(tmp_path / "rows.jsonl")

    def run(self):
        made = samples(self.config, self.paths)
        return made, attempt(self.acting, made, self.rows)


def test_samples_of_a_question_have_seeds_of_their_own(tmp_path):
    agent = Agent(tmp_path, "false", lambda request: f"<code>final_answer_print({request.seed})</code>")
    made, done = agent.run()
    assert [(one.task.id, one.number) for one in made] == [("q0", 0), ("q0", 1), ("q1", 0), ("q1", 1), ("q1", 2)]
    assert [trajectory.meta.get("sample", 0) for trajectory in done] == [0, 1, 0, 1, 2]
    assert len({trajectory.answer for trajectory in done}) == 5


@pytest.mark.parametrize("as_published", ["true", "false"])
def test_a_question_is_tried_again_only_as_published(tmp_path, as_published):
    """Half of the seeds answer; tried up to five times, nearly all samples end answered, and it is on record."""
    agent = Agent(
        tmp_path, as_published, lambda r: "<code>final_answer_print(1)</code>" if r.seed % 5 == 0 else "<code>1</code>"
    )
    _, done = agent.run()
    tries = [trajectory.meta.get("tries", 1) for trajectory in done]
    if as_published == "true":
        assert max(tries) > 1
        assert all(t.answer is not None or n == 5 for t, n in zip(done, tries, strict=True))
    else:
        assert tries == [1] * 5
