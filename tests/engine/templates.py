"""Small tokenizers with the chat templates and special tokens of the models that are trained here."""

from __future__ import annotations

from pathlib import Path

import trl
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LLAMA = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
DEEPSEEK = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>")

SMOLLM2 = (
    "{% for message in messages %}"
    "{% if loop.first and message.role != 'system' %}"
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML with that model's default system message; its wheel holds the template, and no test needs the wheel."""

KINDS = {
    "qwen2.5": ("qwen2_5", CHATML, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}),
    "qwen3": ("qwen3", (*CHATML, "<think>", "</think>"), {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}),
    "llama3.1": ("llama3_1", LLAMA, {"bos_token": LLAMA[0], "eos_token": "<|eot_id|>"}),
    "smollm2": (None, CHATML, {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}),
    "deepseek_r1": ("deepseek_r1_distill", DEEPSEEK, {"bos_token": DEEPSEEK[0], "eos_token": DEEPSEEK[1]}),
}


def tokenizer(kind: str, text: str = "") -> PreTrainedTokenizerFast:
    """A byte-level BPE, as all of them have, with merges learned from `text`; the templates are the ones TRL ships."""
    name, specials, roles = KINDS[kind]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        [text], trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    backend.add_special_tokens([*specials])
    made = PreTrainedTokenizerFast(tokenizer_object=backend, name_or_path=kind, **roles)
    folder = Path(trl.__file__).parent / "chat_templates"
    made.chat_template = SMOLLM2 if name is None else (folder / f"{name}.jinja").read_text(encoding="utf-8")
    return made
