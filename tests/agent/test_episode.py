import pytest

from fakes import LocalPool, ScriptedAsyncEngine, ScriptedEngine, by_turn
from score.agent.drivers import run_episodes
from score.agent.episode import Episode, Forced, forced_prefix
from score.agent.protocol import Message, plan_text, step_text
from score.config.schema import Protocol, Sampling
from score.engine.base import Completion
from score.errors import InfrastructureError
from score.records import Step, StopReason, Task

LIMITS = Protocol(max_steps=3, max_malformed=2)
TASK = Task("t", "What is 2 + 3?", ("5",), "toy")
GOOD = (plan_text("add"), step_text("add", "x = 2 + 3\nprint(x)"), step_text("answer", "final_answer_print(x)"))


def play(*turns, limits=LIMITS, forced=(), engine=ScriptedEngine, tools=None, reply=None):
    episode = Episode(TASK, limits, seed=1, forced=forced)
    run_episodes([episode], engine(reply or by_turn(*turns)), Sampling(), LocalPool(), tools or {})
    return episode.trajectory()


@pytest.mark.parametrize("engine", [ScriptedEngine, ScriptedAsyncEngine])
def test_an_episode_ends_when_executed_code_answers(engine):
    trajectory = play(*GOOD, engine=engine)
    assert (trajectory.stop, trajectory.answer, trajectory.plan) == (StopReason.ANSWERED, "5", "add")
    assert [step.observation for step in trajectory.steps] == ["5", "5"]
    assert trajectory.tokens == {"prompt": 30, "completion": 15, "calls": 3}


def test_mentioning_the_answer_function_is_not_answering():
    talk = step_text("I will call final_answer_print(5)", "y = 'final_answer_print(5)'")
    trajectory = play(plan_text("p"), talk)
    assert (trajectory.stop, trajectory.answer) == (StopReason.MAX_STEPS, None)
    assert len(trajectory.steps) == 3


def test_malformed_turns_in_a_row_end_as_parse_error():
    trajectory = play(plan_text("p"), "no tags at all")
    assert trajectory.stop == StopReason.PARSE_ERROR
    assert [step.error for step in trajectory.steps] == ["parse_error", "parse_error"]
    assert "expected <thought>" in trajectory.steps[0].observation


def test_one_malformed_turn_is_forgiven_and_costs_a_step():
    trajectory = play(plan_text("p"), "oops", step_text("a", "final_answer_print(5)"))
    assert trajectory.stop == StopReason.ANSWERED
    assert [step.error for step in trajectory.steps] == ["parse_error", None]


def test_a_turn_cut_by_the_token_limit_is_named_truncated():
    cut = Completion("<thought>and so", "length", prompt_tokens=1)
    trajectory = play(reply=lambda r: plan_text("p") if len(r.messages) == 1 else cut)
    assert trajectory.steps[0].error == "truncated"


def test_a_conversation_that_no_longer_fits_overflows():
    trajectory = play(reply=lambda r: plan_text("p") if len(r.messages) == 1 else Completion("", "context"))
    assert trajectory.stop == StopReason.CONTEXT_OVERFLOW


def test_an_answer_on_the_last_allowed_step_counts():
    work = step_text("w", "print(1)")
    trajectory = play(plan_text("p"), work, work, step_text("a", "final_answer_print(5)"))
    assert (trajectory.stop, len(trajectory.steps)) == (StopReason.ANSWERED, 3)


@pytest.mark.parametrize("engine", [ScriptedEngine, ScriptedAsyncEngine])
def test_a_failing_tool_is_an_infrastructure_error_and_no_answer(engine):
    def broken(query):
        raise InfrastructureError("search is down")

    trajectory = play(
        plan_text("p"), step_text("s", 'print(web_search("x"))'), tools={"web_search": broken}, engine=engine
    )
    assert trajectory.stop == StopReason.INFRASTRUCTURE_ERROR
    assert "search is down" in trajectory.meta["failure"]
    assert trajectory.answer is None


def test_a_dead_endpoint_fails_its_episode_only():
    def reply(request):
        return InfrastructureError("gone") if request.messages[0].content == "dead" else by_turn(*GOOD)(request)

    dead, alive = Episode(Task("d", "dead", ("1",), "toy"), LIMITS, seed=0), Episode(TASK, LIMITS, seed=0)
    run_episodes([dead, alive], ScriptedAsyncEngine(reply), Sampling(), LocalPool(), {})
    assert (dead.stop, alive.stop) == (StopReason.INFRASTRUCTURE_ERROR, StopReason.ANSWERED)


def test_a_resumed_episode_has_the_state_before_the_wrong_step():
    """The discarded step set x = 99; after the rollback x must be what the verified prefix left (hazard 6)."""
    prefix = forced_prefix(Message("assistant", plan_text("p")), [Step("a", "x = 5\nprint(x)", "5")])
    trajectory = play(step_text("answer", "final_answer_print(x)"), forced=prefix)
    assert trajectory.answer == "5"
    assert len(trajectory.steps) == 2


def test_a_prefix_that_prints_something_else_is_named():
    prefix = forced_prefix(Message("assistant", plan_text("p")), [Step("a", "print(5)", "6")])
    trajectory = play("unused", forced=prefix)
    assert trajectory.stop == StopReason.INFRASTRUCTURE_ERROR
    assert "ReplayMismatch" in trajectory.meta["failure"]


def test_a_corrected_step_is_executed_for_real():
    fix = Forced(Message("assistant", step_text("fix", "x = 7\nprint(x)")))
    trajectory = play(
        step_text("answer", "final_answer_print(x)"), forced=(Forced(Message("assistant", plan_text("p"))), fix)
    )
    assert (trajectory.steps[0].observation, trajectory.answer) == ("7", "7")


def test_finished_episodes_never_get_another_turn():
    """In batched decoding a finished episode must leave the batch before the next call."""

    def reply(request):
        short = request.messages[0].content == "short"
        done = sum(m.role == "assistant" for m in request.messages)
        if done == 0:
            return plan_text("p")
        return step_text("a", "final_answer_print(1)") if short or done == 3 else step_text("w", f"print({done})")

    tasks = [Task(str(i), "short" if i % 2 else "long", ("1",), "toy") for i in range(7)]
    episodes = [Episode(task, LIMITS, seed=0) for task in tasks]
    engine = ScriptedEngine(reply, batch=4)
    run_episodes(episodes, engine, Sampling(), LocalPool(), {})
    for episode in episodes:
        answering = [i for i, step in enumerate(episode.steps) if "final_answer_print" in step.code]
        assert answering == [len(episode.steps) - 1]
        assert len(episode.steps) == (1 if episode.task.question == "short" else 3)
    assert sum(engine.sizes) == sum(len(episode.steps) + 1 for episode in episodes)


def test_the_seed_of_a_turn_depends_on_the_episode_alone():
    seen = {}

    def reply(request):
        done = sum(m.role == "assistant" for m in request.messages)
        seen.setdefault((request.messages[0].content, done), []).append(request.seed)
        return by_turn(*GOOD)(request)

    def run(order, batch):
        episodes = [Episode(Task(str(i), f"q{i}", ("5",), "toy"), LIMITS, seed=100 + i) for i in order]
        run_episodes(episodes, ScriptedEngine(reply, batch=batch), Sampling(), LocalPool(), {})

    run([0, 1, 2, 3], 4)
    run([3, 1, 0, 2], 1)
    assert all(len(set(seeds)) == 1 and len(seeds) == 2 for seeds in seen.values())
    assert len({seeds[0] for seeds in seen.values()}) == len(seen)
