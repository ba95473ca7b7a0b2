"""An `AsyncEngine` over OpenAI-compatible chat endpoints.

The openai client does what it does well: time-outs, and retries of 408, 409, 429, 5xx and lost connections with
backoff, jitter and Retry-After, over one pool of as many connections as requests may be in flight. Its typed requests
and replies are left out: they would cost as much as all the rest.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Sequence
from typing import Any

import httpx2  # what the openai client sends with: of its connection pool no part takes longer with more connections
import openai

from score.config.schema import Forms, Model
from score.engine.balance import Balancer
from score.engine.base import Completion, Request
from score.engine.serve import Server
from score.engine.served import is_of_this_node
from score.errors import InfrastructureError, ScoreError

log = logging.getLogger("engine")

_CONNECT_S = 10.0
_IDLE_S = 3.0  # vLLM closes a connection after 5 idle seconds, and a request may be on its way just then
_LOOK_S = 0.5  # between two looks at whether the server still runs
_REFUSED = (openai.BadRequestError, openai.UnprocessableEntityError)
_FAILED = (openai.APIConnectionError, openai.InternalServerError)
_NOBODY = (502, 503)  # from a gateway that finds no server behind it


class OpenAIEngine:
    """One model behind one or several base URLs. A request that fails for good raises `InfrastructureError`.

    Args:
        urls: equal servers; one that cannot be reached is stood in for by the others.
        token_ids: ask for the sampled ids, which vLLM gives; so it is a vLLM.
        forms: what a vLLM is to hold a plan or a step to.
        logprobs: ask for the sampled tokens' log-probabilities.
        server: the server behind the URL, if this job started it; its end ends all requests.
    """

    def __init__(
        self, urls: Sequence[str], model: str, *, concurrency: int, timeout_s: float, retries: int, key: str,
        token_ids: bool = False, logprobs: bool = False, forms: Forms | None = None, server: Server | None = None,
    ) -> None:  # fmt: skip
        self.urls, self.model, self.concurrency = tuple(urls), model, concurrency
        self.retried = 0
        """Further sendings of a request so far: after a failure, to another server, without what the first refused."""
        self.served = {"model": model, **(server.facts if server else {"urls": list(urls)})}
        """For the provenance: who answers."""
        self._settings = {
            "base_url": urls[0],
            "api_key": key,
            "timeout": httpx2.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s), pool=None),
            "max_retries": retries,
        }
        self._token_ids, self._logprobs, self._schemas = token_ids, logprobs, True
        self._forms = forms or Forms()
        self._server, self._balancer = server, Balancer(urls)
        self._client: openai.AsyncOpenAI | None = None
        self._watch: asyncio.Task | None = None
        self._flying: set[asyncio.Timeout] = set()

    async def __aenter__(self) -> OpenAIEngine:
        """Opens the connection pool; it belongs to the running event loop."""
        most = self.concurrency
        limits = httpx2.Limits(max_connections=most, max_keepalive_connections=most, keepalive_expiry=_IDLE_S)
        socket = self._server and self._server.socket
        # A server of our own or of this machine is reached directly, whatever proxies the environment names.
        is_near = self._server or all(map(is_of_this_node, self._balancer.in_flight))
        own = httpx2.AsyncHTTPTransport(uds=socket, limits=limits) if is_near else None
        hooks = {"request": [self._count_retry], "response": [_check_whole]}
        http = httpx2.AsyncClient(limits=limits, transport=own, event_hooks=hooks)
        self._client = openai.AsyncOpenAI(**self._settings, http_client=http)
        if self._server:
            self._watch = asyncio.create_task(self._end_with_server())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._watch:
            self._watch.cancel()
        await self._client.close()
        self._client = self._watch = None

    async def complete(self, request: Request) -> Completion:
        if self._server and (why := self._server.death()):
            raise InfrastructureError(why)
        try:
            async with asyncio.timeout(None) as flying:
                self._flying.add(flying)
                try:
                    return self._completion(await self._ask_one(request))
                finally:
                    self._flying.discard(flying)
        except TimeoutError as error:  # from `_end_with_server`
            raise InfrastructureError(self._server.death()) from error
        except _REFUSED as error:
            if _too_long(error):
                return Completion("", "context")
            raise InfrastructureError(f"{self._name()} refused a request: {error}") from error
        except (openai.OpenAIError, ValueError) as error:  # ValueError: what cannot be sent, or was not understood
            why = error.__cause__ if isinstance(error.__cause__, httpx2.DecodingError) else error
            raise InfrastructureError(f"{self._name()}: {type(error).__name__}: {why}") from error

    async def _ask_one(self, request: Request) -> Any:
        """The reply of the server that fits best, or of another if that one cannot be reached."""
        conversation = hash(next((m.content for m in request.messages if m.role == "user"), ""))
        *others, last = self._balancer.order(conversation)
        body = self._body(request)
        for url in others:
            try:
                return await self._ask(url, conversation, body)
            except _FAILED as error:
                if not _unreached(error):
                    raise
            self.retried += 1
        return await self._ask(last, conversation, body)

    async def _ask(self, url: str, conversation: int, body: dict[str, Any]) -> Any:
        with self._balancer.asking(url, conversation):
            try:
                reply = await self._fitted(url, body)
            except _FAILED:
                self._balancer.failed(url)
                raise
        self._balancer.answered(url)
        return reply

    async def _fitted(self, url: str, body: dict[str, Any]) -> Any:
        """The reply to a request, without what this server does not take: a limit beyond its context, a schema."""
        try:
            return await self._post(url, body)
        except _REFUSED as error:
            if (_too_long(error) or _limit_too_high(error)) and "max_tokens" in body:
                # The limit asked for may not fit although the conversation does: without one, the room left is used.
                self.retried += 1
                return await self._fitted(url, _without(body, "max_tokens"))
            if _too_long(error) or "response_format" not in body:
                raise
            refusal = error
        self.retried += 1
        reply = await self._fitted(url, _without(body, "response_format"))
        if self._schemas:
            log.warning("%s takes no schema for a reply; it is asked without from now on (%s)", self._name(), refusal)
        self._schemas = False
        return reply

    async def _post(self, url: str, body: dict[str, Any]) -> Any:
        return await self._client.post(f"{url.rstrip('/')}/chat/completions", body=body, cast_to=object)

    def _body(self, request: Request) -> dict[str, Any]:
        sampling = request.sampling
        body = {
            "model": self.model,
            "messages": [message.chat() | {"content": _sendable(message.content)} for message in request.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "seed": request.seed,
        }
        # Not everybody knows these two, so they are named only where they matter.
        if sampling.top_k:
            body["top_k"] = sampling.top_k
        if sampling.repetition_penalty != 1.0:
            body["repetition_penalty"] = sampling.repetition_penalty
        if self._token_ids:
            body["return_token_ids"] = True
        if self._logprobs:
            body["logprobs"] = True
        if request.turn and (form := getattr(self._forms, request.turn)):
            body["structured_outputs"] = {"regex": form}
        if request.schema is not None and self._schemas:
            schema = {"name": "reply", "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def _completion(self, reply: Any) -> Completion:
        """Raises `InfrastructureError` unless the reply is one."""
        try:
            choice = reply["choices"][0]
            text, finish = choice["message"]["content"], choice.get("finish_reason")
            usage = reply.get("usage") or {}
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
            prompt, completion = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
            ids = choice.get("token_ids")
            ids = None if ids is None else tuple(ids)
            said = (choice.get("logprobs") or {}).get("content") if self._logprobs else None
            logprobs = None if said is None else tuple(token["logprob"] for token in said)
        except (LookupError, TypeError, AttributeError) as error:
            raise InfrastructureError(f"{self._name()} sent no completion: {str(reply)[:200]!r}") from error
        if finish not in ("stop", "length"):  # aborted, filtered, for a tool: a turn of which not all is there
            raise InfrastructureError(f"{self._name()} ended a reply with {finish!r}, so it is no whole turn")
        if not isinstance(text, str):
            raise InfrastructureError(f"{self._name()} sent a reply without content")
        if ids is not None and finish == "stop":
            ids = ids[:-1]  # a turn that ended has the token that ended it
            logprobs = logprobs and logprobs[: len(ids)]
        return Completion(text, finish, ids, prompt, completion, logprobs, cached)

    async def _count_retry(self, sent: httpx2.Request) -> None:
        self.retried += sent.headers.get("x-stainless-retry-count", "0") != "0"

    async def _end_with_server(self) -> None:
        """Ends the requests in flight when the server has ended: it will not answer, and none is to wait for it."""
        while self._server.death() is None:
            await asyncio.sleep(_LOOK_S)
        for flying in self._flying:
            flying.reschedule(asyncio.get_running_loop().time())

    def _name(self) -> str:
        return str(self._server.log) if self._server else ", ".join(self.served["urls"])


async def _check_whole(reply: httpx2.Response) -> None:
    """Makes of a body that is broken JSON a failed sending, which the openai client repeats like a lost connection."""
    if reply.is_success and "json" in reply.headers.get("Content-Type", ""):
        try:
            json.loads(await reply.aread())
        except (ValueError, RecursionError) as error:
            raise httpx2.DecodingError(f"the reply is not JSON: {error}", request=reply.request) from error


def _sendable(text: str) -> str:
    """The text with lone surrogates, which have no UTF-8 form, as the six characters of their escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def _unreached(error: openai.APIError) -> bool:
    """Nobody was there to answer. What takes a server too long or breaks it would do so to its equals as well."""
    if isinstance(error, openai.APITimeoutError):
        return isinstance(error.__cause__, httpx2.ConnectTimeout)
    return not isinstance(error, openai.APIStatusError) or error.status_code in _NOBODY


def _too_long(error: openai.APIStatusError) -> bool:
    return error.code == "context_length_exceeded" or "context length" in str(error).lower()


def _limit_too_high(error: openai.APIStatusError) -> bool:
    """More new tokens are asked for than the whole context has."""
    return "max_tokens" in str(error) and "max_completion_tokens" not in str(error)  # which is another limit's name


def _without(body: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != key}


def connect(model: Model, name: str, *, server: Server | None = None) -> OpenAIEngine:
    """The engine of a model that is served under `name`: by a server of this job, or at the entry's own URLs.

    Raises `ScoreError` if the key of the entry's endpoint is not set.
    """
    own = server is not None
    return OpenAIEngine(
        [f"{server.url}/v1"] if own else model.urls, name, concurrency=model.batch, timeout_s=model.timeout_s,
        retries=model.retries, key="none" if own else endpoint_key(model), server=server,
        token_ids=model.token_ids or model.engine == "vllm", logprobs=model.logprobs, forms=model.forms,
    )  # fmt: skip


def endpoint_key(model: Model) -> str:
    """The API key of a remote endpoint. Raises `ScoreError` if it needs one and its variable is not set."""
    if model.api_key_env is None:
        return "none"
    key = os.environ.get(model.api_key_env)
    if not key:
        raise ScoreError(
            f"models: endpoint {', '.join(model.urls)} needs an API key in the environment variable {model.api_key_env}"
        )
    return key
