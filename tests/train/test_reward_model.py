"""A batch's rewards: rules and execution first, then the reward judge, and what its silence means."""

import contextlib
import dataclasses

import pytest

from fakes import ScriptedAsyncEngine
from score.agent.protocol import Message, plan_text
from score.config.schema import Agent, Config, Sampling
from score.config.training import Grpo
from score.correct.sets import KeyStep
from score.errors import InfrastructureError
from score.jsonl import ResumableRows, read_rows
from score.judge.verdicts import Judge
from score.records import Step, StopReason, Task, Trajectory
from score.train import grpo
from score.train.grpo import RewardModel
from score.usage import Usage

GRPO = Grpo(lr=1e-3, updates=2, batch=8, micro_batch=4, generations=4)
PREFIX = (Step("Find Ba", "x = 4\nprint(x)", "4"),)


def key_step(name: str) -> KeyStep:
    task = Task(name, f"How many coins has {name}?", ("5",), "toy", {"metric": "exact"})
    wrong, fix = Step("w", "print(9)", "9"), Step("f", "print(x + 1)", "5")
    return KeyStep(task, 2, Message("assistant", plan_text("Plan: 2")), PREFIX, wrong, fix)


class TestRewardModel:
    agent = Agent(name="rl", label="RL", method="grpo")

    def model(self, judge=None, **agent):
        return RewardModel(self.agent.model_copy(update=agent), GRPO, judge)

    def trajectory(self, *steps, answer=None):
        stop = StopReason.ANSWERED if answer else StopReason.MAX_STEPS
        return Trajectory(key_step("Ba").task, "p", (PREFIX[0], *steps), stop, answer, plan_text=plan_text("p"))

    def reward(self, model, *steps, answer=None):
        return model([self.trajectory(*steps, answer=answer)], [key_step("Ba")])[0]

    def test_levels(self):
        model = self.model()
        assert self.reward(model, Step("", "final_answer_print(5)", "5"), answer="5") == (1.0, "final")
        assert self.reward(model, Step("", "print(4 + 1)", "5")) == (0.5, "key")
        assert self.reward(model, Step("", "print(3)", "3")) == (0.1, "avoid")
        assert self.reward(model, Step("", "print(9)", "9")) == (0.0, "none")

    def test_an_early_wrong_answer_keeps_its_key_step_credit(self):
        """Credit for the key step does not depend on a final answer having been printed (hazard 20)."""
        model = self.model()
        assert self.reward(
            model, Step("", "print(4 + 1)", "5"), Step("", "final_answer_print(7)", "7"), answer="7"
        ) == (0.5, "key")

    def test_key_step_reward_is_a_switch(self):
        model = self.model(key_step_reward=False)
        assert self.reward(model, Step("", "print(4 + 1)", "5")) == (0.0, "none")

    def test_what_execution_cannot_decide_goes_to_the_judge_and_its_failure_is_raised(self):
        silent = key_step("Ba")
        silent = KeyStep(silent.task, 2, silent.plan, PREFIX, Step("w", "y = 9", ""), Step("f", "y = x + 1", ""))
        rollout = self.trajectory(Step("", "y = 4 + 1", ""))
        yes = Judge(ScriptedAsyncEngine(lambda r: '{"equivalent": true}'), Sampling())
        assert self.model(yes)([rollout], [silent])[0] == (0.5, "key")
        down = Judge(ScriptedAsyncEngine(lambda r: InfrastructureError("down")), Sampling())
        with pytest.raises(InfrastructureError):
            self.model(down)([rollout], [silent])
        mumbling = Judge(ScriptedAsyncEngine(lambda r: "that is true"), Sampling())
        assert self.model(mumbling)([rollout], [silent])[0][1] == "undecided", "one reply condemns no judge"

    def test_a_rollout_without_a_verdict_is_undecided_and_has_no_reward(self):
        def reply(request):
            candidate = request.messages[1].content.partition("<candidate>")[2]
            return "hm" if "mumble" in candidate else f'{{"equivalent": {"true" if "good" in candidate else "false"}}}'

        engine = ScriptedAsyncEngine(reply)
        task = Task("Ba", "Who?", ("Ada",), "toy", {"metric": "judge"})
        hard = [KeyStep(task, 0, None, (), None, None)] * 6
        answers = ["good", "bad", "mumble", "good", None, "Ada"]
        rolled = [dataclasses.replace(self.trajectory(answer=answer), task=task) for answer in answers]
        given = self.model(Judge(engine, Sampling()))(rolled, hard)
        assert [tier for _, tier in given] == ["final", "none", "undecided", "final", "none", "final"]
        assert [value for value, _ in given] == [1.0, 0.0, None, 1.0, 0.0, 1.0]
        assert len(engine.requests) == 4, "the same answer is judged once; the mumbled one is asked for again"

    def batches(self, model, count, answers=lambda i: f"answer {i}", size=2):
        """So many batches of rollouts with answers that rules leave open."""
        task = Task("Ba", "Who?", ("Ada",), "toy", {"metric": "judge"})
        hard = [KeyStep(task, 0, None, (), None, None)] * size
        for batch in range(count):
            names = [answers(batch * size + i) for i in range(size)]
            yield model([dataclasses.replace(self.trajectory(answer=name), task=task) for name in names], hard)

    def test_a_judge_that_is_readable_in_less_than_half_of_many_cases_is_no_judge(self):
        """Counted over distinct cases and across batches, however few of them a batch leaves to the judge."""
        mumbling = ScriptedAsyncEngine(lambda r: "hm")
        given = self.batches(self.model(Judge(mumbling, Sampling())), 100)
        message = f"no readable verdict on {grpo.LEAST} of the last {grpo.LEAST} cases; the last: unreadable, 'hm'"
        with pytest.raises(InfrastructureError, match=message):
            list(given)
        assert len(mumbling.requests) == 2 * grpo.LEAST

    def test_one_case_that_a_judge_cannot_read_however_often_it_comes_stops_nobody(self):
        engine = ScriptedAsyncEngine(lambda r: "hm")
        given = list(self.batches(self.model(Judge(engine, Sampling())), 2 * grpo.LEAST, lambda i: "the same"))
        assert {tier for batch in given for _, tier in batch} == {"undecided"}
        assert len(engine.requests) == 2, "and it is asked about once"

    def test_a_judge_that_goes_bad_is_noticed_and_half_is_enough_of_one(self):
        asked = []

        def reply(request):
            asked.append(request)
            number = int(request.messages[1].content.partition("<candidate>answer ")[2].partition("<")[0])
            return "hm" if number >= 400 or number % 2 else '{"equivalent": true}'

        given = self.batches(self.model(Judge(ScriptedAsyncEngine(reply), Sampling())), 400)
        with pytest.raises(InfrastructureError, match=f"of the last {grpo.WINDOW} cases"):
            list(given)
        assert 400 < len({r.messages[1].content for r in asked}) < 400 + grpo.WINDOW

    def test_what_a_judge_could_not_say_is_asked_for_anew_after_a_restart(self, tmp_path):
        for reply, tiers, requests in (("hm", {"undecided"}, 4), ('{"equivalent": true}', {"final"}, 2)):
            engine = ScriptedAsyncEngine(lambda r, reply=reply: reply)
            with ResumableRows(tmp_path / "rulings.jsonl") as rows:
                model = self.model(Judge(engine, Sampling(), rows=rows, anew=True))
                assert {tier for batch in self.batches(model, 1) for _, tier in batch} == tiers
            assert len(engine.requests) == requests
        with ResumableRows(tmp_path / "rulings.jsonl") as rows:
            assert self.model(Judge(None, Sampling(), rows=rows, anew=True)).judge.missing([]) == {}
            assert [row["equivalent"] for row in rows.done.values()] == [True, True]

    def test_the_reward_judge_is_its_own_entry_and_its_rulings_survive_a_restart(self, tmp_path, monkeypatch):
        opened, replies = [], ["hm", "hm", '{"equivalent": true}']

        @contextlib.contextmanager
        def open_engine(model, log):
            opened.append(model.path)
            yield ScriptedAsyncEngine(lambda r: replies.pop(0))

        monkeypatch.setattr(grpo, "open_engine", open_engine)
        sizes = ("small", "large")
        config = Config.model_validate(
            {
                "experiment": "toy", "title": "toy", "seeds": [0], "benchmarks": ["gaia"],
                "models": {size: {"engine": "endpoint", "url": "http://x", "path": size} for size in sizes},
                "roles": {"teacher": "large", "reward_judge": "small", "evaluation_judge": "large"},
                "sampling": {name: {} for name in ("student", "evaluate", "plan", "step", "judge")},
                "agents": [{"name": "a", "label": "a", "model": "small"}],
            }
        )  # fmt: skip
        task = Task("Ba", "Who?", ("Ada",), "toy", {"metric": "judge"})
        rolled = dataclasses.replace(self.trajectory(answer="she"), task=task)
        for tier in ("undecided", "final", "final"):
            with (
                Usage(tmp_path, "grpo") as usage,
                grpo.reward_model(config, self.agent, GRPO, tmp_path, usage) as model,
            ):
                assert model([rolled], [KeyStep(task, 0, None, (), None, None)])[0][1] == tier
        assert opened == ["small"] * 3
        assert [row["reply"] for row in read_rows(tmp_path / "rulings.jsonl")] == ["hm", '{"equivalent": true}']
