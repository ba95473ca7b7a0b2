"""DPO on key-step pairs: which ids are compared, what is left out, and that the preference is learned."""

import copy

import pytest
import torch

from score.agent.protocol import Message, plan_text, step_text
from score.config.training import Dpo
from score.correct.sets import KeyStep
from score.errors import ScoreError
from score.records import Step, Task
from score.train.dpo import pair, pairs, train

PREFIX = (Step("Find Ba", "x = 4\nprint(x)", "4", text=step_text("Find Ba", "x = 4\nprint(x)")),)
SETTINGS = Dpo(lr=3e-3, epochs=6, batch=2, micro_batch=2, beta=0.1, max_length=256, schedule="constant", save_every=4)


def key_step(name="Ba", k=2, **changes):
    plan = Message("assistant", plan_text("Plan: 2")) if k else None
    wrong, fix = (Step(t, c, o, text=step_text(t, c)) for t, c, o in (("w", "print(9)", "9"), ("f", "print(5)", "5")))
    fields = {"k": k, "plan": plan, "prefix": PREFIX if k else (), "wrong": wrong, "fix": fix}
    task = Task(name, f"How many coins has {name}?", ("5",), "toy", {"metric": "exact"})
    return KeyStep(task=task, **(fields | changes))


def test_a_pair_is_one_turn_against_another_after_the_same_prefix(random_student):
    _, codec = random_student
    ids = pair(key_step(), codec)
    before = codec.decode(ids["prompt_ids"])
    assert before.endswith("<|user|>Observation: 4<|end|><|assistant|>")
    assert codec.decode(ids["chosen_ids"]) == step_text("f", "print(5)") + "<|end|>"
    assert codec.decode(ids["rejected_ids"]) == step_text("w", "print(9)") + "<|end|>"


def test_a_corrected_plan_is_a_pair_after_the_bare_question(random_student):
    _, codec = random_student
    plans = {name: Step(text, "", text=plan_text(text)) for name, text in (("wrong", "Plan: 3"), ("fix", "Plan: 2"))}
    ids = pair(key_step(k=0, **plans), codec)
    assert codec.decode(ids["prompt_ids"]) == "<|user|>How many coins has Ba?<|end|><|assistant|>"
    assert codec.decode(ids["chosen_ids"]) == plan_text("Plan: 2") + "<|end|>"


def test_sampled_ids_are_compared_as_they_were_sampled(random_student):
    _, codec = random_student
    odd = tuple(codec.tokenizer.encode("p")) + tuple(codec.tokenizer.encode("rint(9)"))
    ids = pair(key_step(wrong=Step("w", "print(9)", "9", text="print(9)", token_ids=odd)), codec)
    assert ids["rejected_ids"] == [*odd, codec.eos_id]


def test_what_is_left_out_is_counted(random_student):
    _, codec = random_student
    hard = key_step(k=0, fix=None, wrong=None)
    empty = key_step("Be", fix=Step("", " ", text="<thought></thought><code> </code>"))
    data = pairs([key_step(), hard, empty, key_step("B" * 300)], codec, max_length=200)
    assert len(data.rows) == 1
    assert data.counts == {"given": 4, "used": 1, "hard_without_pair": 1, "empty_turn": 1, "too_long": 1}
    assert data.left_out.rows == [("Ba", "hard_without_pair"), ("Be", "empty_turn"), ("B" * 300, "too_long")]
    with pytest.raises(ScoreError, match="DPO has no pairs"):
        pairs([hard], codec, max_length=200)


def test_training_prefers_the_fix(random_student, tmp_path):
    model, codec = random_student
    data = pairs([key_step(name) for name in ("Ba", "Bo", "Be", "Bi")], codec, max_length=256).rows
    _, history = train(model, copy.deepcopy(model), codec, data, SETTINGS, tmp_path, 0, "dpo")
    margins = [row["rewards/margins"] for row in history if "rewards/margins" in row]
    assert abs(margins[0]) < 1e-4, "the model starts as its own reference"
    assert margins[-1] > 0.1


def test_a_killed_run_continues_to_the_same_weights(random_student, tmp_path):
    class Killed(Exception):
        pass

    def run(work, kill_at=None):
        model, codec = copy.deepcopy(random_student[0]), random_student[1]
        data = pairs([key_step(name) for name in ("Ba", "Bo", "Be", "Bi")], codec, max_length=256).rows
        if kill_at is not None:
            with pytest.MonkeyPatch.context() as patch:
                from score.train.output import ProgressCallback

                def stop(self, args, state, control, **kwargs):
                    if state.global_step == kill_at:
                        raise Killed

                patch.setattr(ProgressCallback, "on_step_begin", stop, raising=False)
                with pytest.raises(Killed):
                    train(model, copy.deepcopy(model), codec, data, SETTINGS, work, 0, "dpo")
            return None
        trained, _ = train(model, copy.deepcopy(model), codec, data, SETTINGS, work, 0, "dpo")
        return torch.cat([p.detach().flatten() for p in trained.parameters()])

    straight = run(tmp_path / "straight")
    run(tmp_path / "killed", kill_at=6)
    assert (tmp_path / "killed/checkpoints/checkpoint-4").is_dir()
    assert torch.allclose(run(tmp_path / "killed"), straight, atol=1e-6)
