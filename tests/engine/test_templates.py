"""The chat templates of the models that are trained: what a training row is, character by character.

`golden/<model>.txt` shows rows as text, the trained parts between double brackets. SCORE_GOLDEN=write writes them anew.
"""

import itertools
import os
from pathlib import Path

import pytest
from templates import tokenizer

from score.agent.protocol import Message, messages, plan_text, step_text
from score.engine.codec import ChatCodec
from score.errors import ScoreError
from score.records import Step

GOLDEN = Path(__file__).parent / "golden"
TRAINED = ("qwen2.5", "qwen3", "llama3.1", "smollm2")

STEPS = (
    Step("Find the height.", 'h = web_search("height of Ba")\nprint(h)', "Page: 0\nTitle: Ba\nSnippet: 12 m "),
    Step("Half of it, nothing to print.", "half = 12 / 2", None),
    Step("Answer.", "final_answer_print(half)", "6.0"),
)
SYSTEM = "You act by code."


def conversation(system: str | None, **more) -> list[Message]:
    return messages("How high is half of Ba?", "Plan: look it up, halve it.", STEPS, system=system, **more)


def codec(kind: str) -> ChatCodec:
    return ChatCodec(tokenizer(kind, " ".join(m.content for m in conversation(SYSTEM))))


def whole(c: ChatCodec, conversation: list[Message], *, generate: bool) -> str:
    """What the template makes of the conversation at once."""
    chat = [message.chat() for message in conversation]
    return c.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=generate)


def shown(c: ChatCodec, conversation: list[Message]) -> str:
    """The training row as text, what is trained between double brackets."""
    pairs = zip(*c.training_row(conversation), strict=True)
    runs = itertools.groupby(pairs, key=lambda pair: pair[1] != -100)
    return "".join(("[[%s]]" if trained else "%s") % c.decode([token for token, _ in run]) for trained, run in runs)


@pytest.mark.parametrize("kind", TRAINED)
def test_a_training_row_is_the_golden_one(kind):
    c = codec(kind)
    rows = "\n----- with a system message\n".join(shown(c, conversation(system)) for system in (None, SYSTEM)) + "\n"
    file = GOLDEN / f"{kind}.txt"
    if os.environ.get("SCORE_GOLDEN") == "write":
        file.parent.mkdir(exist_ok=True)
        file.write_text(rows, encoding="utf-8")
    assert rows == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("system", [None, SYSTEM])
@pytest.mark.parametrize("kind", TRAINED)
def test_what_is_asked_of_a_model_is_the_template_of_the_whole_conversation(kind, system):
    """So a server, which renders all of it at once, reads what a training row has before the turn."""
    c = codec(kind)
    full = conversation(system, final_observation=True)
    for end in [i + 1 for i, message in enumerate(full) if message.role == "user"]:
        expected = whole(c, full[:end], generate=True)
        assert c.decode(c.prompt(full[:end])) == expected


@pytest.mark.parametrize("kind", TRAINED)
def test_a_row_begins_with_every_prompt_that_its_turns_were_sampled_from(kind):
    c = codec(kind)
    full = conversation(SYSTEM)
    ids, labels = c.training_row(full)
    starts = [i for i, (a, b) in enumerate(zip([-100, *labels], labels, strict=False)) if a == -100 != b]
    turns = [i for i, message in enumerate(full) if message.role == "assistant"]
    assert [c.prompt(full[:turn]) for turn in turns] == [ids[:start] for start in starts]


@pytest.mark.parametrize(
    ("kind", "added"),
    [("qwen2.5", "\n"), ("smollm2", "\n"), ("llama3.1", "")],
)
def test_a_finished_conversation_is_the_template_up_to_what_follows_the_last_turn(kind, added):
    c = codec(kind)
    ids, _ = c.training_row(conversation(SYSTEM))
    assert c.decode(ids) + added == whole(c, conversation(SYSTEM), generate=False)


def test_no_turn_of_qwen3_gets_a_reasoning_block_that_it_was_not_sampled_with():
    """The template writes an empty one before the last turn of a finished conversation."""
    c = codec("qwen3")
    ids, _ = c.training_row(conversation(SYSTEM))
    assert "<think>" not in c.decode(ids)
    finished = whole(c, conversation(SYSTEM), generate=False)
    assert finished.count("<think>\n\n</think>\n\n") == 1
    assert finished.replace("<think>\n\n</think>\n\n", "") == c.decode(ids) + "\n"


def test_reasoning_that_qwen3_sampled_is_trained_on_where_it_was_sampled():
    """Its template forgets it in later prompts, and so would a server; the ids of an attempt stay what they are."""
    c = codec("qwen3")
    text = "<think>\nHm.\n</think>\n\n" + step_text("Answer", "final_answer_print(1)")
    sampled = Message("assistant", text, tuple(c.tokenizer.encode(text)))
    full = [Message("user", "What?"), sampled, Message("user", "Observation: 1")]
    ids, labels = c.training_row(full)
    assert c.decode([t for t, label in zip(ids, labels, strict=True) if label != -100]) == text + "<|im_end|>"
    assert "<think>" not in whole(c, full, generate=True)


def test_llama_trims_a_turn_and_the_row_does_not():
    c = codec("llama3.1")
    turn = Message("assistant", plan_text("p") + " \n")
    ids, _ = c.training_row([Message("user", "What?"), turn])
    assert c.decode(ids).endswith("</first_thought> \n<|eot_id|>")
    assert c.decode(ids).count("<|begin_of_text|>") == 1


def with_template(template: str | None, kind: str = "qwen2.5", **changes) -> ChatCodec:
    made = tokenizer(kind)
    made.chat_template = template
    for name, value in changes.items():
        setattr(made, name, value)
    return ChatCodec(made)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ChatCodec(tokenizer("deepseek_r1")), r"deepseek_r1 writes a turn otherwise .*chat_template.jinja"),
        (lambda: with_template(None), "qwen2.5 does not take a conversation of user, assistant .*chat_template.jinja"),
        (
            lambda: with_template("{{ raise_exception('Roles must alternate') }}"),
            r"qwen2.5 does not take .*\(Roles must alternate\)",
        ),
        (lambda: with_template(tokenizer("smollm2").chat_template, eos_token="<|endoftext|>"), "set eos_token in its"),
        (lambda: with_template("{% for m in messages %}{{ m.role }}{% endfor %}"), "does not end a turn with"),
    ],
)
def test_a_template_that_cannot_be_put_together_is_refused_in_one_line_with_the_mend(make, message):
    with pytest.raises(ScoreError, match=message) as refused:
        make()
    assert "\n" not in str(refused.value)


def test_a_template_without_a_system_role_is_refused_when_a_system_message_comes():
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + (
        tokenizer("qwen2.5").chat_template
    )
    c = with_template(template)
    assert c.prompt([Message("user", "What?")])
    with pytest.raises(ScoreError, match=r"does not take a conversation of system, user \(no system role\)"):
        c.prompt([Message("system", SYSTEM), Message("user", "What?")])
