"""The student's language: a fixed token list, its chat template and the model's shape.

Greedy longest match over whole names, relations and boilerplate phrases, with single ASCII characters as the fallback, so an
episode is about a hundred tokens long and a name is copied in one piece. No phrase crosses a message's border.
"""

from __future__ import annotations

import re

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from score.micro.world import NAMES, RELATIONS

PAD, UNKNOWN, USER, ASSISTANT, END = SPECIAL = ("<|pad|>", "<|unk|>", "<|user|>", "<|assistant|>", "<|end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
CONTEXT = 512

_QUESTIONS = (
    "What is ",
    "What is the larger of ",
    " plus ",
    " minus ",
    " and ",
    "?",
    " has ",
    " coins. ",
    " coins. How many coins has ",
)
_PLANS = (
    "<first_thought>Plan: ",
    "<first_thought>Plan: compute ",
    " searches",
    " search",
    ", ",
    "plus",
    "minus",
    "larger",
    "</first_thought>",
)
_STEPS = (
    "<thought>Find ",
    "</thought><code>",
    '</thought><code>print(web_search("',
    '"))</code>',
    ")</code>",
    "))</code>",
)
_STEPS += ("<thought>Compute</thought><code>print(", "<thought>Compute</thought><code>print(max(")
_STEPS += ("<thought>Answer</thought><code>final_answer_print(", '<thought>Answer</thought><code>final_answer_print("')
_STEPS += ('")</code>', " = ", " + ", " - ", " * ", "\nprint(")
_RESULTS = ("Observation: ", "Observation: None", "Observation: No results.", "Observation: Page: 0\nTitle: ")
_RESULTS += ("\nSnippet: ", ".", " is ", "NameError: name '", "' is not defined")
_TAGS = ("<thought>", "</thought>", "<code>", "</code>", "<first_thought>", 'print(web_search("', '"))', "print(")
_TAGS += ("final_answer_print(", "Page: 0\nTitle: ", "Error: ")
_NUMBERS = tuple(map(str, range(10, 100)))
_CHARACTERS = tuple(map(chr, range(32, 127))) + ("\n",)

VOCABULARY = SPECIAL + tuple(
    dict.fromkeys(
        _CHARACTERS
        + NAMES
        + _NUMBERS
        + tuple(f"'s {r}" for r in RELATIONS)
        + _QUESTIONS
        + _PLANS
        + _STEPS
        + _RESULTS
        + _TAGS
    )
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer; exact on printable ASCII and newlines, every other character becomes <|unk|>."""
    longest_first = sorted(VOCABULARY[len(SPECIAL) :], key=len, reverse=True)
    pattern = Regex("|".join(map(re.escape, longest_first)))
    backend = Tokenizer(models.WordLevel({token: i for i, token in enumerate(VOCABULARY)}, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=CONTEXT,
        chat_template=CHAT_TEMPLATE,
    )


def model_config(hidden: int = 96, layers: int = 3, heads: int = 3, intermediate: int = 256) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=intermediate,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=SPECIAL.index(END),
        pad_token_id=SPECIAL.index(PAD),
    )
