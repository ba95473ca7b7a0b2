"""In-process decoding: reproducible sampling, limits, stop reasons."""

import torch

from score.agent.protocol import Message
from score.config.schema import Sampling
from score.engine.base import Request
from score.engine.transformers import SeededGumbel, TransformersEngine, warpers


def engine(student, batch=4, context=128):
    model, codec = student
    return TransformersEngine(model, codec, context=context, batch=batch)


def requests(n, **sampling):
    sampling = Sampling(**({"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 12} | sampling))
    return [Request((Message("user", "What is the " * (1 + i % 3)),), sampling, seed=i) for i in range(n)]


def test_a_completion_does_not_depend_on_its_batch(random_student):
    asked = requests(7)
    together = engine(random_student, batch=7).complete(asked)
    alone = [engine(random_student, batch=1).complete([request])[0] for request in asked]
    shuffled = engine(random_student, batch=3).complete(asked[::-1])[::-1]
    assert [c.token_ids for c in together] == [c.token_ids for c in alone] == [c.token_ids for c in shuffled]
    assert len({c.token_ids for c in together}) > 1


def test_mixed_samplings_in_one_call(random_student):
    mixed = [*requests(2, temperature=0.0), *requests(2, max_new_tokens=3)]
    done = engine(random_student).complete(mixed)
    assert [c.token_ids for c in done[:2]] == [c.token_ids for c in engine(random_student).complete(mixed[:2])]
    assert all(c.completion_tokens <= 3 for c in done[2:])


def test_text_and_ids_agree_and_the_end_token_is_not_part_of_them(random_student):
    e = engine(random_student)
    for completion in e.complete(requests(8, max_new_tokens=40)):
        assert e.codec.decode(completion.token_ids) == completion.text
        assert e.codec.eos_id not in completion.token_ids
        assert completion.completion_tokens == len(completion.token_ids) + (completion.finish == "stop")


def test_a_full_context_is_named(random_student):
    long = Request((Message("user", "What is the " * 300),), Sampling(), 0)
    short = requests(1)[0]
    done = engine(random_student).complete([long, short])
    assert done[0].finish == "context"
    assert done[1].finish in ("stop", "length")


def test_gumbel_noise_samples_the_softmax():
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    draws = torch.tensor([SeededGumbel([seed])(None, logits).argmax(-1).item() for seed in range(4000)])
    observed = torch.bincount(draws, minlength=3) / 4000
    assert torch.allclose(observed, logits.softmax(-1)[0], atol=0.03)


def test_greedy_has_no_noise_and_penalties_still_apply():
    chain = warpers(Sampling(temperature=0.0, repetition_penalty=1.1), [1])
    assert [type(p).__name__ for p in chain] == ["RepetitionPenaltyLogitsProcessor"]
