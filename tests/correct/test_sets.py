"""From mentored records to training sets: halves, key steps, crashes of the teacher, and the counts."""

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from score.agent.protocol import plan_text
from score.correct.mps import Mentored
from score.correct.sets import make_sets
from score.correct.teacher import Correction
from score.records import Step, StopReason, Task, Trajectory


def task(name: str, answer: str = "5") -> Task:
    return Task(name, f"question {name}", (answer,), "toy", {"metric": "exact"})


def attempt(name: str, right: bool, error: str | None = None) -> Trajectory:
    steps = (Step("t", "print(1)", "1", error=error), Step("t", "final_answer_print(5)", "5"))
    stop = StopReason.ANSWERED if right else StopReason.MAX_STEPS
    return Trajectory(task(name), "p", steps, stop, "5" if right else None, plan_text=plan_text("p"))


def record(name: str, corrections: int, outcome: str) -> Mentored:
    fix = Correction(2, Step("w", "print(2)", "2"), Step("f", "print(1)"))
    attempts = [attempt(name, False)] * corrections + [attempt(name, outcome == "solved")]
    return Mentored(task(name), tuple(attempts), (fix,) * corrections, outcome)


outcomes = st.sampled_from([(0, "solved"), (1, "solved"), (3, "solved"), (5, "hard"), (1, "failed")])


@settings(max_examples=50)
@given(st.lists(outcomes, max_size=30), st.integers(0, 3), st.randoms())
def test_training_sets_are_disjoint_complete_and_independent_of_order(drawn, seed, random):
    records = [record(f"t{i}", n, outcome) for i, (n, outcome) in enumerate(drawn)]
    sets = make_sets(records, sft_share=0.5, hard_in_rl=0.5, seed=seed)
    sft, rl, hard = {t.task.id for t in sets.sft}, {k.task.id for k in sets.rl}, {t.id for t in sets.hard}
    assert not sft & rl
    assert not sft & hard
    assert not rl & hard
    solved = {r.task.id for r in records if r.outcome == "solved"}
    assert len(sets.sft) == round(0.5 * len(solved))
    assert sft | {t.task.id for t in sets.other_half} == solved, "what the control trains on beside the SFT half"
    assert {k.task.id for k in sets.rl if k.kind == "key_step"} <= {t.task.id for t in sets.other_half}
    assert hard | {k.task.id for k in sets.rl if k.kind == "hard"} == {
        r.task.id for r in records if r.outcome == "hard"
    }
    shuffled = random.sample(records, len(records))
    again = make_sets(shuffled, sft_share=0.5, hard_in_rl=0.5, seed=seed)
    assert {t.task.id for t in again.sft} == sft
    assert {k.task.id for k in again.rl} == rl


def step(code: str, observation: str, error: str | None = None) -> Step:
    return Step("t", code, observation, error=error)


def ended(*steps: Step, right: bool = False) -> Trajectory:
    stop = StopReason.ANSWERED if right else StopReason.MAX_STEPS
    return Trajectory(task("t"), "p", steps, stop, "5" if right else None, plan_text=plan_text("p"))


def corrected(k: int, wrong: Step, fix: Step) -> Correction:
    return Correction(k, wrong, Step(fix.thought, fix.code))


ANSWER, GOOD, BAD = step("final_answer_print(5)", "5"), step("good()", "1"), step("bad()", "0")
OTHER = step("other()", "2")
CRASH = step("oops()", "NameError: oops", "exception")


def solved(corrections, *attempts):
    return Mentored(task("t"), attempts, corrections, "solved")


def rl_of(record):
    return make_sets([record], sft_share=0.0, hard_in_rl=0.0, seed=0)


def test_the_key_step_is_the_earliest_error_with_the_students_own_prefix():
    first, second, last = ended(GOOD, BAD), ended(GOOD, OTHER, BAD), ended(GOOD, OTHER, ANSWER, right=True)
    mentored = solved((corrected(2, BAD, OTHER), corrected(3, BAD, ANSWER)), first, second, last)
    (key,) = rl_of(mentored).rl
    assert (key.k, key.wrong, key.prefix) == (2, BAD, (GOOD,))
    assert key.fix == OTHER, "with the observation that its execution gave"


def test_an_error_that_is_found_earlier_later_on_is_the_earliest():
    """Turn 2 was corrected first, but turn 1 was wrong already: a prefix with turn 1 is not a verified one."""
    first, second, last = ended(BAD, BAD), ended(BAD, OTHER), ended(GOOD, ANSWER, right=True)
    (key,) = rl_of(solved((corrected(2, BAD, OTHER), corrected(1, BAD, GOOD)), first, second, last)).rl
    assert (key.k, key.wrong, key.prefix, key.fix) == (1, BAD, (), GOOD)


def test_a_turn_that_was_corrected_twice_has_the_students_error_and_the_last_correction():
    first, second, last = ended(BAD), ended(CRASH), ended(GOOD, ANSWER, right=True)
    mentored = solved((corrected(1, BAD, CRASH), corrected(1, CRASH, GOOD)), first, second, last)
    (key,) = rl_of(mentored).rl
    assert (key.k, key.wrong, key.fix) == (1, BAD, GOOD)
    sets = make_sets([mentored], sft_share=1.0, hard_in_rl=0.0, seed=0)
    assert len(sets.sft) == 1, "the crash is gone from the attempt that ended right"
    assert (sets.summary["crashed"], sets.summary["sft_dropped_crashed"]) == (1, 0)


def test_nothing_is_learned_from_a_teachers_step_that_crashed():
    mentored = solved((corrected(1, BAD, CRASH),), ended(BAD), ended(CRASH, ANSWER, right=True))
    sets = rl_of(mentored)
    assert (sets.rl, sets.other_half) == ([], [])
    assert (sets.summary["crashed"], sets.summary["rl_dropped_crashed"]) == (1, 1)
    sets = make_sets([mentored], sft_share=1.0, hard_in_rl=0.0, seed=0)
    assert (sets.sft, sets.summary["sft_dropped_crashed"]) == ([], 1)


def test_a_later_crash_of_the_teacher_spoils_the_trajectory_but_not_the_key_step():
    first, second, last = ended(BAD), ended(GOOD, BAD), ended(GOOD, CRASH, ANSWER, right=True)
    mentored = solved((corrected(1, BAD, GOOD), corrected(2, BAD, CRASH)), first, second, last)
    sets = rl_of(mentored)
    assert [key.fix for key in sets.rl] == [GOOD]
    assert sets.other_half == []


def test_the_students_own_crash_is_trained_on():
    """It is what the student meets and recovers from; only a teacher's step is a model."""
    sets = make_sets([solved((), ended(CRASH, ANSWER, right=True))], sft_share=1.0, hard_in_rl=0.0, seed=0)
    assert len(sets.sft) == 1


def test_a_task_with_a_crashed_correction_can_be_hard():
    mentored = Mentored(task("t"), (ended(BAD), ended(CRASH)), (corrected(1, BAD, CRASH),), "hard")
    sets = make_sets([mentored], sft_share=0.5, hard_in_rl=1.0, seed=0)
    assert [(key.kind, key.fix) for key in sets.rl] == [("hard", None)]


def test_what_the_teacher_gave_away_is_counted():
    def leaky(k, **flags):
        return dataclasses.replace(corrected(k, BAD, ANSWER), **flags)

    answered = ended(GOOD, ANSWER, right=True)
    records = [
        solved((leaky(2, leak=True),), ended(GOOD, BAD), answered),
        solved((leaky(1, leak=True, analysis_leak=True, advised=True),), ended(BAD), answered),
        solved((leaky(2, analysis_leak=True),), ended(GOOD, BAD), answered),
        solved((leaky(1, advised=True),), ended(BAD), answered),
    ]
    found = make_sets(records, sft_share=0.5, hard_in_rl=0.5, seed=0).summary
    names = ("corrections", "leaks", "leak_share", "answering", "leaks_answering")
    assert [found[name] for name in names] == [4, 2, 0.5, 2, 1]
    assert [found[name] for name in ("analysis_leaks", "advised", "gold_in_advice")] == [2, 2, 1]


def test_malformed_turns_are_not_trained_on():
    bad = Mentored(task("t"), (attempt("t", True, error="parse_error"),), (), "solved")
    sets = make_sets([bad], sft_share=1.0, hard_in_rl=0.0, seed=0)
    assert sets.sft == []
    assert sets.summary["sft_dropped_unusable"] == 1
