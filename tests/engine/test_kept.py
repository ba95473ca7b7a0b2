"""A conversation goes on from what has been read of it, and goes on as if all of it had been read anew."""

import pytest
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicSlidingWindowLayer

from score.agent.protocol import Message
from score.config.schema import Sampling
from score.engine.base import Request
from score.engine.kept import Kept, Prompt
from score.engine.transformers import TransformersEngine

SAMPLING = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=24)


@pytest.fixture
def student(random_student):
    """One that ends a turn now and then."""
    model, codec = random_student
    favour = torch.zeros(model.config.vocab_size).index_fill(0, torch.tensor(codec.eos_id), 4.0)
    model.lm_head.register_forward_hook(lambda module, inputs, logits: logits + favour)
    return model, codec


def engine(student, limit=2**30, batch=8):
    model, codec = student
    made = TransformersEngine(model, codec, context=256, batch=batch, logprobs=True)
    made.kept = Kept(limit)
    return made


def conversations(done, asked, observation="Observation: 5"):
    """The same requests a turn later."""
    return [
        Request(
            (*r.messages, Message("assistant", c.text, token_ids=c.token_ids), Message("user", observation)),
            r.sampling,
            r.seed + 1000,
        )
        for r, c in zip(asked, done, strict=True)
    ]


def first_turns(n, sampling=SAMPLING):
    return [Request((Message("user", "What is the " * (1 + i % 3)),), sampling, seed=i) for i in range(n)]


@pytest.mark.parametrize("sampling", [SAMPLING, SAMPLING.model_copy(update={"repetition_penalty": 1.3})])
@pytest.mark.parametrize("batch", [8, 3])
def test_later_turns_are_those_of_conversations_that_are_read_anew(student, sampling, batch):
    keeping, anew = engine(student, batch=batch), engine(student, limit=0, batch=2)
    asked, read = first_turns(8, sampling), 0
    for turn in range(4):
        done, expected = keeping.complete(asked), anew.complete(asked)
        assert [c.token_ids for c in done] == [c.token_ids for c in expected]
        for ours, theirs in zip(done, expected, strict=True):
            assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
        read += sum(c.cached_tokens for c in done)
        assert not any(c.cached_tokens for c in expected)
        going_on = conversations(done, asked, observation=f"Observation: {'5' * turn}")
        asked = [*going_on[turn:][::-1], *first_turns(turn, sampling)]  # some are new, others over, the order differs
    assert read > 0


def test_what_was_read_is_all_up_to_the_end_of_the_last_turn(student):
    e = engine(student)
    asked = first_turns(16)
    done = e.complete(asked)
    later = e.complete(conversations(done, asked))
    ended = [c.finish == "stop" and bool(c.token_ids) for c in done]
    assert any(ended)
    expected = [c.prompt_tokens + len(c.token_ids) if whole else 0 for c, whole in zip(done, ended, strict=True)]
    assert [c.cached_tokens for c in later] == expected


def test_only_the_last_call_is_kept_and_no_more_of_it_than_the_limit(student):
    e = engine(student)
    asked = first_turns(16)
    done = e.complete(asked)
    e.complete(first_turns(1))
    assert not any(c.cached_tokens for c in e.complete(conversations(done, asked)[1:]))
    e.complete(asked)
    limit = sum([values.nbytes for values in e.kept._last.values()][:2])
    small = engine(student, limit=limit)
    small.complete(asked)
    assert 0 < sum(values.nbytes for values in small.kept._last.values()) <= limit


def test_a_layer_that_forgets_is_not_kept():
    cache = DynamicCache()
    cache.layers = [DynamicSlidingWindowLayer(sliding_window=4)]
    cache.update(torch.zeros(1, 1, 6, 2), torch.zeros(1, 1, 6, 2), 0)
    kept = Kept()
    kept.keep(kept.batch([Prompt((1, 2, 3))], torch.device("cpu")), [(4, 5, 6)], cache)
    kept.end_call()
    assert kept.found(Prompt((1, 2, 3, 4, 5, 6, 7), answered=6)).read == 0


@pytest.mark.parametrize("change", [lambda model: model.to(torch.bfloat16), lambda model: _without_rotation(model)])
def test_nothing_is_kept_where_it_would_change_what_is_sampled(random_student, change):
    """Of roundings, and where a position is a column, which padding within a row would shift."""
    model, codec = random_student
    assert TransformersEngine(model, codec, context=256, batch=8).kept.limit > 0
    assert TransformersEngine(change(model), codec, context=256, batch=8).kept.limit == 0


def _without_rotation(model):
    model.config.rope_parameters = None
    return model


def test_a_call_leaves_no_more_than_its_own_conversations(student):
    e = engine(student)
    asked = first_turns(16)
    done = e.complete(asked)
    first = set(e.kept._last)
    e.complete(conversations(done, asked)[:4])
    assert not e.kept._coming
    assert 0 < len(e.kept._last) <= 4
    assert not first & set(e.kept._last)
