"""Who samples RL's rollouts: what a vLLM sends back becomes completions in their places."""

from types import SimpleNamespace

import pytest
from toy_rl import SETTINGS

from score.agent.protocol import Message
from score.config.schema import Sampling
from score.config.training import Grpo
from score.engine.base import Request
from score.train.samplers import TrainerEngine, VllmEngine, arguments, sampling


def request(text, seed=0):
    return Request((Message("user", text),), Sampling(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=8), seed)


class Trainer:
    """Says of each prompt its length, and ends the turn if that is even."""

    def __init__(self, eos_id):
        self.eos_id, self.asked = eos_id, []
        self.vllm_generation = SimpleNamespace(max_completion_length=None)

    def _generate_single_turn(self, prompts, images, fields, count):
        assert (images, fields, count) == (None, {}, 1)
        self.asked.append(prompts)
        ids = [[len(p) % 7 + 5, 6, *([self.eos_id] if len(p) % 2 == 0 else [])] for p in prompts]
        return ids, [[-0.5] * len(row) for row in ids]


def test_a_vllms_tokens_are_completions_in_their_places(random_student):
    codec = random_student[1]
    trainer = Trainer(codec.eos_id)
    engine = VllmEngine(trainer, codec, batch=4, turn_tokens=8, context=40)
    assert trainer.vllm_generation.max_completion_length == 8
    asked = [request("How many coins?"), request("Ba " * 50), request("How many?"), request("How many coins has Bo?")]
    found = engine.complete(asked)
    assert [len(prompts) for prompts in trainer.asked] == [3], "the one that is too long is not asked about"
    assert (found[1].finish, found[1].text) == ("context", "")
    for i in (0, 2, 3):
        prompt = codec.prompt(asked[i].messages)
        ended = len(prompt) % 2 == 0
        assert found[i].finish == ("stop" if ended else "length")
        assert found[i].token_ids == (len(prompt) % 7 + 5, 6)
        assert found[i].logprobs == (-0.5, -0.5)
        assert (found[i].prompt_tokens, found[i].completion_tokens) == (len(prompt), 3 if ended else 2)
        assert found[i].text == codec.decode(found[i].token_ids)


def test_a_vllm_is_not_asked_about_nothing(random_student):
    trainer = Trainer(random_student[1].eos_id)
    engine = VllmEngine(trainer, random_student[1], batch=4, turn_tokens=8, context=20)
    assert [c.finish for c in engine.complete([request("Ba " * 50)])] == ["context"]
    assert trainer.asked == []


@pytest.mark.parametrize("training", [True, False])
def test_the_trainers_engine_leaves_the_model_in_its_mode_and_tells_probabilities(random_student, training):
    model, codec = random_student
    model.train(training)
    engine = TrainerEngine(model, codec, context=128)
    assert model.training is training
    (one,) = engine.complete([request("How many coins?", seed=3)])
    assert len(one.logprobs) == len(one.token_ids) > 0
    assert all(value < 0 for value in one.logprobs)
    (again,) = engine.complete([request("How many coins?", seed=3)])
    assert again == one


def test_a_colocated_vllm_sleeps_while_the_trainer_trains(monkeypatch):
    from score.train import samplers

    monkeypatch.setattr(samplers.importlib.util, "find_spec", lambda name: object())
    settings = Grpo.model_validate(SETTINGS.model_dump() | {"sampler": "vllm_colocate", "sampler_memory": 0.25})
    words = arguments(settings)
    assert words["vllm_mode"] == "colocate"
    assert words["vllm_enable_sleep_mode"]
    assert words["vllm_gpu_memory_utilization"] == 0.25
    assert words["vllm_max_model_length"] == settings.max_prompt + settings.max_completion
    assert sampling(settings).top_k == 0
