"""From conversations to token ids, one function for rollout, SFT and RL.

A chat template is used for what surrounds the assistant's turns; the turns themselves are the ids as sampled where they
are known, else the text encoded by itself. So a conversation is a list of segments, and a segment has the same ids
wherever it occurs: nothing is ever decoded and tokenised again.

What is trained is what was sampled, also where a template would have it otherwise for a conversation that is complete.
Llama's trims a turn, and Qwen3's drops the reasoning of all turns but the last and writes an empty block of it before
that one. No sampled turn looks like that, so no turn in a training row does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import zip_longest

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from score.agent.protocol import Message
from score.errors import ScoreError

_MARK = "\u2042assistant\u2042"  # stands for an assistant turn while the template is rendered
_PROBE = tuple(
    Message(role, letter) for role, letter in zip(("user", "assistant") * 2 + ("user",), "abcde", strict=True)
)


@dataclass(frozen=True)
class Segment:
    """Token ids, and whether the assistant wrote them (its end-of-turn token included)."""

    ids: tuple[int, ...]
    assistant: bool


class ChatCodec:
    """Encodes conversations for one tokenizer. Raises `ScoreError` if its chat template does not suit."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.eos_id: int = tokenizer.eos_token_id
        self._specials = sorted({*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}, key=len, reverse=True)
        self._glue = lru_cache(maxsize=65536)(self._glue_uncached)
        self._head = lru_cache(maxsize=4096)(self._head_uncached)
        self._check()

    def _check(self) -> None:
        """Raises `ScoreError` if turns put together are not what the template makes of the whole conversation."""
        name, end = self.tokenizer.name_or_path, self.tokenizer.eos_token
        if end is None or not self._after_turn((("user", "x"),)).startswith(end):
            raise ScoreError(
                f"the chat template of {name} does not end a turn with {end}; set eos_token in its "
                "tokenizer_config.json to the token that ends one"
            )
        whole, turns = self._render(_plain(_PROBE, self._clean), generate=True), self.decode(self.prompt(_PROBE))
        if whole != turns:
            at = next(i for i, (a, b) in enumerate(zip_longest(whole, turns)) if a != b)
            raise ScoreError(
                f"the chat template of {name} writes a turn otherwise later on than when it is asked for "
                f"({whole[at : at + 40]!r}, not {turns[at : at + 40]!r}); give it one that does not, as "
                "chat_template.jinja"
            )

    def segments(self, messages: Sequence[Message]) -> list[Segment]:
        """The conversation as segments; a last user message is followed by the generation prompt."""
        first = next((i for i, m in enumerate(messages) if m.role == "assistant"), len(messages))
        found = [Segment(self._head(_plain(messages[:first], self._clean)), False)]
        i = first
        while i < len(messages):
            turn, i = messages[i], i + 1
            found.append(Segment((*self.turn_ids(turn), self.eos_id), True))
            following = i
            while following < len(messages) and messages[following].role != "assistant":
                following += 1
            if following > i:
                found.append(Segment(self._glue(_plain(messages[i:following], self._clean)), False))
            i = following
        return found

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids of everything before the next assistant turn."""
        return [token for segment in self.segments(messages) for token in segment.ids]

    def training_row(self, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
        """(input_ids, labels): loss on the assistant's own tokens only, -100 on everything that it read.

        A teacher's ids count only if they are of this tokenizer, which shows in the text that they stand for.
        """
        ids: list[int] = []
        labels: list[int] = []
        for segment in self.segments([self._in_own_ids(message) for message in messages]):
            ids += segment.ids
            labels += segment.ids if segment.assistant else [-100] * len(segment.ids)
        return ids, labels

    def turn_ids(self, message: Message) -> tuple[int, ...]:
        """Ids of one assistant turn without its end token."""
        return message.token_ids if message.token_ids is not None else self._encode(self._clean(message.content))

    def _in_own_ids(self, message: Message) -> Message:
        if message.token_ids is None or self._stands_for(message.token_ids, message.content):
            return message
        return replace(message, token_ids=None)

    def _stands_for(self, ids: Sequence[int], text: str) -> bool:
        return max(ids, default=0) < len(self.tokenizer) and self.decode(ids) == text

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def _clean(self, text: str) -> str:
        """Breaks up special tokens in text that a user or a tool wrote, so that none can forge a turn."""
        for special in self._specials:
            if special in text:
                text = text.replace(special, f"{special[:1]} {special[1:]}")
        return text

    def _render(self, messages: Sequence[tuple[str, str]], generate: bool) -> str:
        chat = [{"role": role, "content": content} for role, content in messages]
        try:
            return self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=generate)
        except (TemplateError, ValueError) as error:  # it refuses a role or an order, or there is none
            raise ScoreError(
                f"the chat template of {self.tokenizer.name_or_path} does not take a conversation of "
                f"{', '.join(dict.fromkeys(role for role, _ in messages))} ({str(error).splitlines()[0][:120]}); "
                "give it one that does, as chat_template.jinja"
            ) from None

    def _head_uncached(self, messages: tuple[tuple[str, str], ...]) -> tuple[int, ...]:
        return self._encode(self._render(messages, generate=True))

    def _after_turn(self, following: tuple[tuple[str, str], ...]) -> str:
        text = self._render((("user", "x"), ("assistant", _MARK), *following), generate=True)
        return text.partition(_MARK)[2]

    def _glue_uncached(self, following: tuple[tuple[str, str], ...]) -> tuple[int, ...]:
        """Ids between an assistant turn's end token and the next assistant turn."""
        return self._encode(self._after_turn(following).removeprefix(self.tokenizer.eos_token))


def _plain(messages: Sequence[Message], clean) -> tuple[tuple[str, str], ...]:
    return tuple((m.role, clean(m.content)) for m in messages)
