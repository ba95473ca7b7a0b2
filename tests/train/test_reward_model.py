"""A batch's rewards: rules and execution first, then the reward judge, and what its silence means."""

import contextlib
import dataclasses

import pytest

from fakes import ScriptedAsyncEngine
from score.agent.protocol import Message, plan_text
from score.config.schema import Agent, Config, Grpo, Sampling
from score.correct.sets import KeyStep
from score.errors import InfrastructureError
from score.jsonl import read_rows
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
        with pytest.raises(InfrastructureError, match="no readable verdict on 1 of 1 cases; the first: unreadable"):
            self.model(mumbling)([rollout], [silent])

    def test_a_rollout_without_a_verdict_is_undecided_and_shifts_nobodys_baseline(self):
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
        assert given[2][0] == pytest.approx(3 / 5), "the mean of the others"
        assert len(engine.requests) == 4, "the same answer is judged once; the mumbled one is asked for again"

    def test_the_reward_judge_is_its_own_entry_and_its_rulings_survive_a_restart(self, tmp_path, monkeypatch):
        opened = []

        @contextlib.contextmanager
        def open_engine(model, log):
            opened.append(model.path)
            yield ScriptedAsyncEngine(lambda r: '{"equivalent": true}')

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
        for _ in range(2):
            with (
                Usage(tmp_path, "grpo") as usage,
                grpo.reward_model(config, self.agent, GRPO, tmp_path, usage) as model,
            ):
                assert model([rolled], [KeyStep(task, 0, None, (), None, None)]) == [(1.0, "final")]
        assert opened == ["small", "small"]
        (row,) = read_rows(tmp_path / "rulings.jsonl")
        assert row["reply"] == '{"equivalent": true}'
