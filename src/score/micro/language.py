"""The student's language: a fixed token list, its chat template and the model's shape.

Greedy longest match over whole names, relations, numbers and boilerplate phrases, with single ASCII characters as the
fallback, so an episode is about eighty tokens long and a name is copied in one piece. No phrase crosses a message's
border. The order of the list is the order of the ids in the shipped weights: a change asks for a new pre-training.
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

_CHARACTERS = (*map(chr, range(32, 127)), "\n")
_NUMBERS = tuple(map(str, range(10, 100)))
_RELATIONS = tuple(f"'s {relation}" for relation in RELATIONS)
_PHRASES = (
    # questions
    *("What is ", "What is the larger of ", " plus ", " minus ", " and ", "?"),
    *(" has ", " coins.", " coins. ", " coins. How many coins has "),
    # plans
    *("<first_thought>Plan: ", "<first_thought>Plan: compute ", "</first_thought>"),
    *(" search", " searches", ", ", "plus", "minus", "larger"),
    # steps
    *(
        "<thought>Find ",
        "</thought><code>",
        '</thought><code>print(web_search("',
        ")</code>",
        "))</code>",
        '"))</code>',
    ),
    *("<thought>Compute</thought><code>print(", "<thought>Compute</thought><code>print(max("),
    *(
        "<thought>Answer</thought><code>final_answer_print(",
        '<thought>Answer</thought><code>final_answer_print("',
        '")</code>',
    ),
    *("<thought>", "</thought>", "<code>", "</code>", "<first_thought>", "final_answer_print("),
    *(" = ", " + ", " - ", " * ", "print(", "\nprint(", 'print(web_search("', '\nprint(web_search("', '"))'),
    # observations
    *("Observation: ", "Observation: None", "Observation: No results.", "Observation: Page: 0\nTitle: "),
    *("Page: 0\nTitle: ", "\nSnippet: ", " is ", ". ", "NameError: name '", "' is not defined", "Error: "),
)
VOCABULARY = tuple(dict.fromkeys((*SPECIAL, *_CHARACTERS, *NAMES, *_NUMBERS, *_RELATIONS, *_PHRASES)))


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


def model_config(hidden: int = 96, layers: int = 3, heads: int = 6, intermediate: int = 256) -> LlamaConfig:
    """A Llama of about 0.37 M parameters, small enough for reinforcement learning on one CPU core."""
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
