"""An `AsyncEngine` over any OpenAI-compatible chat endpoint; the openai client does retries, backoff and
Retry-After."""

from __future__ import annotations

import os

import openai

from score.config.schema import Model
from score.engine.base import Completion, Request
from score.errors import InfrastructureError, ScoreError


class OpenAIEngine:
    """One model behind one base URL. A request that fails for good raises `InfrastructureError`."""

    def __init__(
        self, base_url: str, model: str, *, concurrency: int, timeout_s: float, retries: int, key: str
    ) -> None:
        self.base_url, self.model, self.concurrency = base_url, model, concurrency
        self._settings = {"base_url": base_url, "api_key": key, "timeout": timeout_s, "max_retries": retries}
        self._client: openai.AsyncOpenAI | None = None

    async def __aenter__(self) -> OpenAIEngine:
        """Opens the connection pool; it belongs to the running event loop."""
        self._client = openai.AsyncOpenAI(**self._settings)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.close()
        self._client = None

    async def complete(self, request: Request) -> Completion:
        sampling = request.sampling
        extra = {"top_k": sampling.top_k} if sampling.top_k else {}
        if sampling.repetition_penalty != 1.0:
            extra["repetition_penalty"] = sampling.repetition_penalty
        call = {
            "model": self.model,
            "messages": [message.chat() for message in request.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": request.seed,
            "extra_body": extra,
        }
        try:
            try:
                reply = await self._client.chat.completions.create(**call, max_tokens=sampling.max_new_tokens)
            except openai.BadRequestError as error:
                if not _too_long(error):
                    raise
                # The limit asked for may not fit although the conversation does: without one, the room left is used.
                reply = await self._client.chat.completions.create(**call)
        except openai.BadRequestError as error:
            if _too_long(error):
                return Completion("", "context")
            raise InfrastructureError(f"{self.base_url} refused a request: {error}") from error
        except openai.OpenAIError as error:
            raise InfrastructureError(f"{self.base_url}: {type(error).__name__}: {error}") from error
        if not reply.choices or reply.choices[0].message.content is None:
            raise InfrastructureError(f"{self.base_url} sent a reply without content")
        usage, choice = reply.usage, reply.choices[0]
        return Completion(
            text=choice.message.content,
            finish="length" if choice.finish_reason == "length" else "stop",
            prompt_tokens=usage.prompt_tokens if usage else 0,
            completion_tokens=usage.completion_tokens if usage else 0,
        )


def _too_long(error: openai.BadRequestError) -> bool:
    return error.code == "context_length_exceeded" or "context length" in str(error).lower()


def connect(model: Model, base_url: str, name: str, *, key: str = "none") -> OpenAIEngine:
    """The engine of a model that is served at `base_url` under `name`."""
    return OpenAIEngine(
        base_url, name, concurrency=model.batch, timeout_s=model.timeout_s, retries=model.retries, key=key
    )


def endpoint_key(model: Model) -> str:
    """The API key of a remote endpoint. Raises `ScoreError` if its variable is not set."""
    key = os.environ.get(model.api_key_env)
    if not key:
        raise ScoreError(
            f"models: endpoint {model.url} needs an API key in the environment variable {model.api_key_env}"
        )
    return key
