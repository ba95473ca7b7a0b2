import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from micro_play import demonstration
from transformers import AutoTokenizer

from score.agent.protocol import messages, plan_text, step_text
from score.micro.language import END, VOCABULARY, make_tokenizer, model_config
from score.micro.oracle import Oracle
from score.micro.tasks import BENCHMARKS, LONG, make_tasks
from score.micro.world import NAMES, make_world

TOKENIZER = make_tokenizer()
PRINTABLE = "".join(map(chr, range(32, 127))) + "\n"
TEXTS = st.lists(st.one_of(st.sampled_from(VOCABULARY), st.text(PRINTABLE, max_size=5))).map("".join)


@given(TEXTS)
def test_decoding_undoes_encoding(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_every_token_of_the_list_is_one_id():
    assert [TOKENIZER.encode(token) for token in VOCABULARY] == [[i] for i in range(len(VOCABULARY))]
    assert set(string.digits) <= set(VOCABULARY)


@pytest.fixture(scope="module")
def reloaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language")
    TOKENIZER.save_pretrained(folder)
    model_config().save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@given(text=TEXTS)
def test_ids_survive_saving_and_loading(reloaded, text):
    assert reloaded.encode(text) == TOKENIZER.encode(text)
    assert reloaded.decode(reloaded.encode(text)) == text


def test_the_chat_template_joins_roles_and_contents_with_nothing_between(reloaded):
    conversation = [{"role": "user", "content": "a b"}, {"role": "assistant", "content": " c\n"}]
    rendered = reloaded.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    assert rendered == "<|user|>a b<|end|><|assistant|> c\n<|end|><|assistant|>"
    assert reloaded.eos_token == END
    assert reloaded.pad_token_id == 0


@pytest.mark.parametrize(("world", "most"), [(BENCHMARKS, 160), (LONG, 400)])
def test_an_episode_fits_has_no_unknown_token_and_plans_in_one_turn(world, most):
    oracle = Oracle(make_world(), leap=0.0)
    lengths = []
    for benchmark in world:
        for task in make_tasks(benchmark, "train", 3):
            steps, _ = demonstration(oracle, task.question)
            chat = messages(task.question, oracle.plan(task.question), tuple(steps))
            ids = [TOKENIZER.encode(message.content) for message in chat]
            assert not any(TOKENIZER.unk_token_id in message for message in ids)
            lengths.append(sum(map(len, ids)) + 2 * len(ids))
            assert max(len(ids[i]) for i, message in enumerate(chat) if message.role == "assistant") < 24
    assert max(lengths) < most


def test_names_are_kept_whole():
    for name in NAMES:
        assert name in [TOKENIZER.decode([i]) for i in TOKENIZER.encode(step_text(f"Find {name}", f"{name} = 2"))]
    assert len(TOKENIZER.encode(plan_text("Plan: 3 searches"))) == 4
