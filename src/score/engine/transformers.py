"""A model in this process: batched decoding with transformers, for small models on CPU or one GPU.

Sampling is reproducible per conversation: each has its own random stream (Gumbel-max over the warped scores), so the
result depends on neither the batch's composition nor the order in which episodes end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from score.config.schema import Model, Sampling
from score.engine import gpus
from score.engine.adapter import adapter_in
from score.engine.base import Completion, Request
from score.engine.codec import ChatCodec
from score.engine.kept import Kept, Prompt
from score.errors import ScoreError


class SeededGumbel(LogitsProcessor):
    """Adds Gumbel noise from one generator per row, so that the arg-max is a sample of that row's distribution.

    `logprobs` has a tensor [B] for each token so far: the log-probabilities of what was sampled.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.logprobs: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        noise = torch.stack([torch.empty(scores.shape[-1]).exponential_(generator=g) for g in self.generators])
        scores = scores.float()
        noisy = scores - noise.to(scores.device).log()
        chosen = noisy.argmax(dim=-1, keepdim=True)
        self.logprobs.append(scores.log_softmax(dim=-1).gather(-1, chosen).squeeze(-1))
        return noisy


def warpers(sampling: Sampling, seeds: Sequence[int]) -> LogitsProcessorList:
    """What turns raw scores into ones whose arg-max is the next token."""
    chain = LogitsProcessorList()
    if sampling.repetition_penalty != 1.0:
        chain.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.temperature == 0:
        return chain
    if sampling.temperature != 1.0:
        chain.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        chain.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        chain.append(TopPLogitsWarper(sampling.top_p))
    chain.append(SeededGumbel(seeds))
    return chain


class TransformersEngine:
    """A `BatchEngine` over a loaded causal language model.

    The weights stay as they are: what it keeps of conversations holds for them. With `logprobs` a completion says how
    probable its tokens were, after temperature and truncation; not if greedy.
    """

    def __init__(
        self, model: PreTrainedModel, codec: ChatCodec, *, context: int, batch: int, logprobs: bool = False
    ) -> None:
        self.model, self.codec, self.context, self.batch = model.eval(), codec, context, batch
        self.logprobs = logprobs
        tokenizer = codec.tokenizer
        self.pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else codec.eos_id
        self.kept = Kept.of(model)

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        prompts = [self._prompt(request) for request in requests]
        completions = [Completion("", "context", prompt_tokens=len(prompt.ids)) for prompt in prompts]
        fitting = [i for i, prompt in enumerate(prompts) if len(prompt.ids) + 1 < self.context]
        fitting.sort(
            key=lambda i: (repr(requests[i].sampling), len(prompts[i].ids))
        )  # one sampling and like lengths together
        for start in range(0, len(fitting), self.batch):
            chunk = fitting[start : start + self.batch]
            for sampling in {requests[i].sampling.model_dump_json(): requests[i].sampling for i in chunk}.values():
                rows = [i for i in chunk if requests[i].sampling == sampling]
                decoded = self._decode([prompts[i] for i in rows], sampling, [requests[i].seed for i in rows])
                for i, (ids, logprobs) in zip(rows, decoded, strict=True):
                    completions[i] = self._completion(ids, logprobs, prompts[i])
        self.kept.end_call()
        return completions

    def _prompt(self, request: Request) -> Prompt:
        segments = self.codec.segments(request.messages)
        ids = tuple(token for segment in segments for token in segment.ids)
        answered = len(ids) - len(segments[-1].ids) - 1 if len(segments) > 1 else 0  # the end token was sampled last
        return self.kept.found(Prompt(ids, answered))

    @torch.no_grad()
    def _decode(
        self, prompts: list[Prompt], sampling: Sampling, seeds: list[int]
    ) -> list[tuple[list[int], list[float]]]:
        """New ids per row, the end token included if it was sampled, and their log-probabilities (none if greedy)."""
        batch = self.kept.batch(prompts, self.model.device)
        room = [min(sampling.max_new_tokens, self.context - len(prompt.ids)) for prompt in prompts]
        config = GenerationConfig(
            do_sample=False,  # the warpers hold the randomness
            max_new_tokens=max(room),
            eos_token_id=self.codec.eos_id,
            pad_token_id=self.pad_id,
            return_dict_in_generate=True,
        )
        chain = warpers(sampling, seeds)
        out = self.model.generate(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            past_key_values=batch.cache,
            generation_config=config,
            logits_processor=chain,
        )
        noted = next((step.logprobs for step in chain if isinstance(step, SeededGumbel)), [])
        logprobs = torch.stack(noted, dim=1).tolist() if noted else [[]] * len(prompts)
        decoded = out.sequences[:, batch.width :].tolist()
        rows = [_until_end(row[:n], self.codec.eos_id) for row, n in zip(decoded, room, strict=True)]
        turns = [row[:-1] if row[-1] == self.codec.eos_id else [] for row in rows]
        self.kept.keep(batch, turns, out.past_key_values)
        return [(row, found[: len(row)]) for row, found in zip(rows, logprobs, strict=True)]

    def _completion(self, ids: list[int], logprobs: list[float], prompt: Prompt) -> Completion:
        ended = bool(ids) and ids[-1] == self.codec.eos_id
        sampled = ids[:-1] if ended else ids
        return Completion(
            text=self.codec.decode(sampled),
            finish="stop" if ended else "length",
            token_ids=tuple(sampled),
            prompt_tokens=len(prompt.ids),
            cached_tokens=prompt.read,
            completion_tokens=len(ids),
            logprobs=tuple(logprobs[: len(sampled)]) if self.logprobs and logprobs else None,
        )


def _until_end(ids: list[int], eos_id: int) -> list[int]:
    return ids[: ids.index(eos_id) + 1] if eos_id in ids else ids


def load_model(path: str, dtype: str, revision: str | None = None) -> tuple[PreTrainedModel, ChatCodec]:
    """A causal language model and its codec from a folder or a hub name; an adapter's folder is the model with it in.

    Raises `ScoreError` if it cannot be read.
    """
    precision = dtype if dtype == "auto" else getattr(torch, dtype)
    adapter = adapter_in(path)
    complete, revision = (adapter.base, adapter.revision) if adapter else (path, revision)
    try:
        model = AutoModelForCausalLM.from_pretrained(complete, dtype=precision, revision=revision)
        codec = ChatCodec(AutoTokenizer.from_pretrained(complete, revision=revision))
        return (_merged(model, path) if adapter else model), codec
    except (OSError, ValueError, SafetensorError) as error:  # missing, unreadable, torn, or of an unknown kind
        raise ScoreError(f"{path}: not a model that can be loaded here: {str(error).splitlines()[0][:200]}") from error


def _merged(model: PreTrainedModel, adapter: str) -> PreTrainedModel:
    """The model with an adapter's folder put into its weights, which can be trained like any others."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, adapter).merge_and_unload().requires_grad_(True)


@contextlib.contextmanager
def open_transformers(model: Model, path: str) -> Iterator[TransformersEngine]:
    """Loads the model for the time of a `with` block."""
    loaded, codec = load_model(path, model.dtype, model.revision)
    with contextlib.ExitStack() as kept:
        if torch.cuda.is_available():
            found = gpus.of_this_job()
            loaded = loaded.to(found.device(kept.enter_context(found.lent(model))))
        yield TransformersEngine(loaded, codec, context=model.context, batch=model.batch, logprobs=model.logprobs)
