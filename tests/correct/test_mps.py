"""Mentored problem solving with scripted student and teacher: control flow, rollback, named failures, sets."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import LocalPool, ScriptedAsyncEngine, ScriptedEngine
from score.agent.drivers import run_episodes
from score.agent.episode import Episode
from score.agent.protocol import plan_text, step_text
from score.config.schema import Protocol, Sampling
from score.correct.mps import Mentored, mentor
from score.correct.sets import KeyStep, make_sets
from score.correct.teacher import Correction, Right, Teacher
from score.errors import InfrastructureError
from score.jsonl import ResumableRows
from score.records import Step, StopReason, Task, Trajectory

SAMPLING = Sampling()
LIMITS = Protocol(max_steps=4)


def task(name: str, answer: str = "5") -> Task:
    return Task(name, f"question {name}", (answer,), "toy", {"metric": "exact"})


def student(tasks_to_turns):
    """Plays attempts: the student's free turns are a function of (question, turn)."""

    def reply(request):
        done = sum(m.role == "assistant" for m in request.messages)
        return tasks_to_turns(request.messages[0].content, done)

    def play(starts):
        episodes = [Episode(s.task, LIMITS, seed=s.attempt, forced=s.forced) for s in starts]
        run_episodes(episodes, ScriptedEngine(reply), SAMPLING, LocalPool(), {})
        return [e.trajectory() for e in episodes]

    return play


def teacher(locate, rewrite):
    """A teacher whose model answers locate prompts with a step number and rewrite prompts with a turn."""

    def reply(request):
        text = request.messages[1].content
        if "<wrong" in text:
            return rewrite(text)
        return locate(text)

    engine = ScriptedAsyncEngine(reply)
    return Teacher(engine, step=SAMPLING, judge=SAMPLING), engine


def wrong_then_answer(question, turn):
    return [plan_text("p"), step_text("a", "x = 4\nprint(x)"), step_text("b", "final_answer_print(x)")][min(turn, 2)]


def found(step):
    return json.dumps({"step": step, "analysis": "because the secret is 5"})


def test_the_student_goes_on_from_the_true_state_after_the_correction():
    mentor_, engine = teacher(lambda _: found(1), lambda _: step_text("a", "x = 5\nprint(x)"))
    (record,) = mentor([task("t")], student(wrong_then_answer), mentor_.review, 5)
    assert record.outcome == "solved"
    assert [c.k for c in record.corrections] == [1]
    final = record.attempts[-1]
    assert [s.observation for s in final.steps] == ["5", "5"]
    assert final.answer == "5"
    rewrite_prompts = [r.messages[1].content for r in engine.requests if "<wrong" in r.messages[1].content]
    assert rewrite_prompts
    assert all("secret" not in p and "<reference>" not in p for p in rewrite_prompts), (
        "only the step number may reach it"
    )


def test_a_wrong_plan_is_corrected_with_an_empty_prefix():
    def turns(question, turn):
        return [plan_text("bad"), step_text("b", "final_answer_print(4)")][min(turn, 1)]

    mentor_, engine = teacher(lambda _: found(0), lambda _: plan_text("good"))
    (record,) = mentor([task("t", "9")], student(turns), mentor_.review, 1)
    assert record.outcome == "hard"
    assert len(record.attempts) == 2, "the first attempt and one after each correction"
    assert len(engine.requests) == 2, "no correction is asked for after the last attempt"
    assert record.attempts[1].plan == "good"


def test_correct_at_once_needs_no_teacher_call():
    mentor_, engine = teacher(lambda _: found(1), lambda _: "")
    (record,) = mentor([task("t", "4")], student(wrong_then_answer), mentor_.review, 5)
    assert (record.outcome, record.corrections, engine.requests) == ("solved", (), [])


def test_unusable_teacher_replies_are_named_and_never_hard():
    cases = {
        "no_wrong_step": (found(None), ""),
        "step_out_of_range": (found(7), ""),
        "unreadable": ("the second step", ""),
        "rewrite_unreadable": (found(1), "sorry"),
        "rewrite_identical": (found(1), step_text("a", "x = 4\nprint(x)")),
    }
    for reason, (located, rewritten) in cases.items():
        mentor_, _ = teacher(lambda _, r=located: r, lambda _, r=rewritten: r)
        (record,) = mentor([task("t")], student(wrong_then_answer), mentor_.review, 5)
        assert record.outcome == "failed"
        assert record.failure.startswith(reason), (reason, record.failure)


def test_an_unreadable_reply_is_asked_for_once_more():
    replies = iter(["not json", found(1)])
    mentor_, _ = teacher(lambda _: next(replies), lambda _: step_text("a", "x = 5\nprint(x)"))
    (record,) = mentor([task("t")], student(wrong_then_answer), mentor_.review, 5)
    assert record.outcome == "solved"


def test_a_dead_teacher_is_a_failure_not_a_hard_task():
    mentor_, _ = teacher(lambda _: InfrastructureError("down"), lambda _: "")
    (record,) = mentor([task("t")], student(wrong_then_answer), mentor_.review, 5)
    assert (record.outcome, record.failure) == ("failed", "infrastructure: down")


def test_a_correction_that_states_the_gold_answer_is_counted_as_a_leak():
    mentor_, _ = teacher(lambda _: found(1), lambda _: step_text("a", "x = 77\nprint(x)"))
    (record,) = mentor([task("t", "77")], student(wrong_then_answer), mentor_.review, 5)
    assert record.corrections[0].leak


def test_records_survive_json():
    mentor_, _ = teacher(lambda _: found(1), lambda _: step_text("a", "x = 5\nprint(x)"))
    (record,) = mentor([task("t")], student(wrong_then_answer), mentor_.review, 5)
    again = Mentored.from_json(json.loads(json.dumps(record.to_json())))
    assert again == record
    (key,) = make_sets([record], sft_share=0.0, hard_in_rl=0.0, seed=0).rl
    assert KeyStep.from_json(json.loads(json.dumps(key.to_json()))) == key


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


def test_the_key_step_is_the_earliest_error_with_the_students_own_prefix():
    first, second = attempt("t", False), attempt("t", True)
    early = Correction(2, Step("w", "bad()", "NameError", error="exception"), Step("f", "good()"))
    late = Correction(1, Step("w2", "bad2()", "x"), Step("f2", "good2()"))
    mentored = Mentored(task("t"), (first, second, second), (early, late), "solved")
    (key,) = make_sets([mentored], sft_share=0.0, hard_in_rl=0.0, seed=0).rl
    assert (key.k, key.wrong.code) == (2, "bad()")
    assert key.prefix == first.steps[:1]
    assert key.fix == second.steps[1], "with the observation that its execution gave"


def test_malformed_turns_are_not_trained_on():
    bad = Mentored(task("t"), (attempt("t", True, error="parse_error"),), (), "solved")
    sets = make_sets([bad], sft_share=1.0, hard_in_rl=0.0, seed=0)
    assert sets.sft == []
    assert sets.summary["sft_dropped_unusable"] == 1


def test_reviews_keep_the_order_of_attempts():
    mentor_, _ = teacher(lambda _: found(1), lambda _: step_text("a", "x = 5\nprint(x)"))
    reviews = mentor_.review([attempt("a", True), attempt("b", False), attempt("c", True)])
    assert [type(r) for r in reviews] == [Right, Correction, Right]


def test_replies_are_kept_and_not_asked_for_again(tmp_path):
    for calls in (2, 0):
        with ResumableRows(tmp_path / "replies.jsonl") as rows:
            mentor_, engine = teacher(lambda _: found(1), lambda _: step_text("a", "x = 5\nprint(x)"))
            mentor_.replies = rows
            (review,) = mentor_.review([attempt("b", False)])
            assert isinstance(review, Correction)
            assert len(engine.requests) == calls
