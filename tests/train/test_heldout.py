"""Held-out questions: the learning curve, what it must not change, and the checkpoint that it selects."""

import copy
import dataclasses

import killed
import pytest
import torch
from safetensors.torch import load_file
from test_resume import kill_before
from test_sft import SETTINGS as SFT
from test_sft import trajectory
from toy_rl import SETTINGS as RL
from toy_rl import key_step, make_exam, make_trainer
from transformers import TrainerCallback

from score.config.training import Lora, Sft
from score.errors import ScoreError
from score.records import Task
from score.train.fit import fit
from score.train.heldout import ACCURACY, HeldOut, N, best, choose, ruled
from score.train.rows import training_set
from score.train.sft import train

TASKS = [Task(f"held-{n}", f"How many coins has {n}?", ("5",), "toy", {"metric": "exact"}) for n in "ab"]


@dataclasses.dataclass
class Marks:
    """An exam with marks that are given beforehand."""

    marks: list[float]

    def __post_init__(self):
        self.left = iter(self.marks)

    def accuracy(self, model):
        return next(self.left), 4


def weights(model) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def looks(history) -> dict[int, float]:
    return {row["step"]: row[ACCURACY] for row in history if ACCURACY in row}


def test_the_learning_curve_looks_at_held_out_questions_from_the_start_to_the_end(random_student, tmp_path):
    trainer = make_trainer(random_student, tmp_path, [key_step("Ba"), key_step("Bo")], max_steps=3)
    HeldOut.watch(trainer, make_exam(random_student[1], TASKS), every=2)
    trainer.train()
    rows = {row["step"]: row for row in trainer.state.log_history if ACCURACY in row}
    assert sorted(rows) == [0, 2, 3]
    assert all(row["heldout/n"] == 2 and 0 <= row[ACCURACY] <= 1 for row in rows.values())
    assert "reward" in rows[2], "a look is part of its update's row"
    assert trainer.model.training


def test_a_look_changes_nothing_of_rl(random_student, tmp_path):
    def trained(every):
        model, codec = copy.deepcopy(random_student[0]), random_student[1]
        trainer = make_trainer((model, codec), tmp_path / str(every), [key_step("Ba"), key_step("Bo")])
        if every:
            HeldOut.watch(trainer, make_exam(codec, TASKS, temperature=1.0), every=every)
        trainer.train()
        return weights(trainer.model)

    assert torch.equal(trained(0), trained(1))


def sft(student, work, *, exam=None, **changes) -> tuple[torch.nn.Module, list[dict]]:
    model, codec = copy.deepcopy(student[0]), student[1]
    data = training_set([trajectory("B" + "a" * i) for i in range(8)], codec, 256)
    settings = Sft.model_validate(SFT.model_dump() | {"epochs": 3, "save_every": 100} | changes)
    return train(model, codec, data, settings, work, 0, "sft", exam)


@pytest.mark.parametrize("lora", [None, {"r": 4, "dropout": 0.2}])
def test_a_look_changes_nothing_of_sft(random_student, tmp_path, lora):
    """Not even of dropout, which draws random numbers."""
    without, _ = sft(random_student, tmp_path / "a", lora=lora)
    exam = make_exam(random_student[1], TASKS, temperature=1.0)
    watched, history = sft(random_student, tmp_path / "b", exam=exam, lora=lora, eval_every=2)
    assert sorted(looks(history)) == [0, 2, 4, 6]
    assert torch.equal(weights(without), weights(watched))


@pytest.mark.parametrize("lora", [None, Lora(r=4)])
@pytest.mark.parametrize(("marks", "chosen"), [([0.9, 0.2, 0.6, 0.6, 0.4], 2), ([0.0, 0.1, 0.2, 0.3, 0.4], 4)])
def test_the_best_look_selects_the_model(random_student, tmp_path, lora, marks, chosen):
    """Its checkpoint outlives the rotation; the start (here even the best) is no candidate; of equals the earlier."""
    more = {"epochs": 2, "lora": lora and lora.model_dump(), "eval_every": 1, "keep": 1, "save_every": 1}
    picked, history = sft(random_student, tmp_path / "best", exam=Marks(marks), select="best", **more)
    assert best(history) == (chosen, marks[chosen])
    last, _ = sft(random_student, tmp_path / "last", exam=Marks(marks), **more)
    assert (chosen == 4) == torch.equal(weights(picked), weights(last))
    kept = {path.name for path in (tmp_path / "last/checkpoints").glob("checkpoint-*")}
    assert {f"checkpoint-{chosen}", "checkpoint-4"} <= kept, "the last as well, which a dying job's successor needs"
    assert len(kept) == 2
    saved = load_file(next((tmp_path / f"best/checkpoints/checkpoint-{chosen}").glob("*.safetensors")))
    own = {name.replace(".default", ""): value for name, value in picked.state_dict().items()}
    assert saved.keys() <= own.keys()
    assert all(torch.equal(own[name], value) for name, value in saved.items())


def test_rl_selects_as_sft_does(random_student, tmp_path):
    settings = RL.model_copy(update={"eval_every": 1, "select": "best"})
    trainer = make_trainer(random_student, tmp_path, [key_step("Ba"), key_step("Bo")], max_steps=3, save_steps=100)
    states = []
    trainer.add_callback(Keep(states))
    model, _ = fit(trainer, settings, tmp_path, Marks([0.0, 0.5, 0.2, 0.2]))
    assert torch.equal(weights(model), states[0])
    assert not torch.equal(weights(model), states[2])


class Keep(TrainerCallback):
    """Keeps the weights after every update."""

    def __init__(self, states):
        self.states = states

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.states.append(weights(model))


def test_a_best_checkpoint_without_weights_is_named(random_student, tmp_path):
    """The trainer alone would warn and go on with the last ones."""
    settings = RL.model_copy(update={"eval_every": 1, "select": "best"})
    trainer = make_trainer(random_student, tmp_path, [key_step("Ba"), key_step("Bo")], max_steps=3, save_steps=100)
    HeldOut.watch(trainer, Marks([0.0, 0.5, 0.2, 0.2]), every=1)
    trainer.train()
    next((tmp_path / "checkpoints/checkpoint-1").glob("*.safetensors")).unlink()
    with pytest.raises(ScoreError, match=r"checkpoint-1: the weights of the best update are gone"):
        choose(trainer, settings)


def test_a_look_that_lost_questions_is_no_candidate():
    rows = [(0, 1.0, 9), (2, 0.5, 9), (4, 1.0, 3), (6, 0.6, 9), (8, 0.6, 9)]
    assert best([{"step": step, ACCURACY: share, N: n} for step, share, n in rows]) == (6, 0.6)


def test_a_killed_run_selects_what_one_in_one_piece_selects(tmp_path):
    """It is killed between the best look and the end."""
    straight, history = killed.best(tmp_path / "straight")
    chosen, _ = best(history)
    assert 4 <= chosen < killed.UPDATES - 2, looks(history)
    kill_before(chosen + 2, "best", tmp_path / "killed")
    resumed, again = killed.best(tmp_path / "killed")
    assert looks(again) == looks(history)
    assert torch.equal(weights(resumed), weights(straight))


def test_to_select_takes_looks():
    with pytest.raises(ValueError, match="select: best needs looks at the held-out questions"):
        Sft.model_validate(SFT.model_dump() | {"select": "best"})


def test_held_out_questions_are_chosen_by_their_metric_not_by_their_outcome():
    """Of a question that needs a judge, rules settle right answers only: counting those would flatter the curve."""
    maths = Task("m", "?", ("5",), "toy", {"metric": "math"})
    search = Task("s", "?", ("Paris",), "toy", {"metric": "judge"})
    assert ruled([maths, search]) == [maths]
    with pytest.raises(ScoreError, match="none of 1 held-out questions is decided by rules"):
        ruled([search])
