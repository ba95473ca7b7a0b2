"""The oracle teacher behind the HTTP interface that a real teacher has (chat completions, OpenAI style).

    python -m score.micro.server --port 8000 --leap 0.4 --seed 0 [--accuracy 0.8]

It answers the prompts of `score/prompts/*.yaml` and plays episodes. What is asked is told by the last user message:
<wrong> asks for a rewrite, <trajectory> for the earliest wrong turn, <candidate> for a verdict; anything else is an
agent's conversation. A request that is none of these, or about another world, gets HTTP 400 and the reason. No
sampling, no streaming.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from score.agent.protocol import parse_plan, parse_step, plan_text, step_text
from score.cli import run
from score.errors import ScoreError
from score.micro.degraded import Degraded
from score.micro.oracle import Oracle
from score.micro.world import make_world
from score.records import Step

MODEL = "micro-oracle"

_QUESTION = re.compile(r"<question>(.*?)</question>", re.DOTALL)
_REFERENCE = re.compile(r"<reference>(.*?)</reference>", re.DOTALL)
_CANDIDATE = re.compile(r"<candidate>(.*)</candidate>", re.DOTALL)
_TRAJECTORY = re.compile(r"<trajectory>(.*)</trajectory>", re.DOTALL)
_WRONG = re.compile(r'<wrong n="(\d+)">.*</wrong>', re.DOTALL)
_TURN = re.compile(r'<turn n="\d+">(.*?)</turn>(?=\s*<turn n="|\s*$)', re.DOTALL)
_OBSERVED = re.compile(r"<observation>(.*)</observation>\s*$", re.DOTALL)


class BadRequest(ScoreError):
    """A request that the oracle cannot answer."""


def _read_messages(body: bytes) -> list[dict[str, str]]:
    """The messages of a request. Raises `BadRequest` if the body is no chat completion request."""
    try:
        messages = json.loads(body)["messages"]
        if not all(isinstance(message[key], str) for message in messages for key in ("role", "content")):
            raise TypeError("role and content must be strings")
    except (ValueError, KeyError, TypeError) as error:
        raise BadRequest(f"not a chat completion request: {error!r}") from None
    return messages


def reply(oracle: Oracle, messages: Sequence[dict[str, str]]) -> str:
    """The content of the message that answers a conversation. Raises `ScoreError` if it cannot be answered."""
    if not messages or messages[-1]["role"] != "user":
        raise BadRequest("the last message must be the user's")
    prompt = messages[-1]["content"]
    if wrong := _WRONG.search(prompt):
        return _rewrite(oracle, prompt, int(wrong[1]))
    if _TRAJECTORY.search(prompt):
        return _locate(oracle, prompt)
    if _CANDIDATE.search(prompt):
        return json.dumps({"equivalent": _equivalent(_field(_CANDIDATE, prompt), _field(_REFERENCE, prompt))})
    return _act(oracle, messages)


def _field(pattern: re.Pattern[str], prompt: str) -> str:
    match = pattern.search(prompt)
    if match is None:
        raise BadRequest(f"the prompt has no {pattern.pattern.partition('>')[0]}>")
    return match[1].strip()


def _read_trajectory(text: str) -> tuple[str | None, list[Step]]:
    """The plan (None if there is none or it is malformed) and the steps of a rendered trajectory."""
    turns = _TURN.findall(text)
    return (parse_plan(turns[0]) if turns else None), [_read_step(turn) for turn in turns[1:]]


def _read_step(turn: str) -> Step:
    observed = _OBSERVED.search(turn)
    return _step(turn[: observed.start()] if observed else turn, observed[1] if observed else None)


def _step(completion: str, observation: str | None) -> Step:
    parsed = parse_step(completion)
    return Step(*(parsed or ("", "")), observation=observation, error=None if parsed else "parse_error")


def _rewrite(oracle: Oracle, prompt: str, k: int) -> str:
    plan, steps = _read_trajectory(_field(_TRAJECTORY, prompt))
    if k > len(steps) + 1:
        raise BadRequest(f"turn {k} is to be rewritten, but the prefix has only {len(steps)} steps")
    turn = oracle.rewrite(_field(_QUESTION, prompt), plan, steps, k)
    return plan_text(turn) if isinstance(turn, str) else step_text(*turn)


def _locate(oracle: Oracle, prompt: str) -> str:
    plan, steps = _read_trajectory(_field(_TRAJECTORY, prompt))
    k = oracle.first_error(_field(_QUESTION, prompt), plan, steps)
    analysis = (
        "No turn is wrong; the attempt is unfinished." if k is None else f"Turn {k} does not find what is needed next."
    )
    return json.dumps({"step": k, "analysis": analysis})


def _equivalent(candidate: str, reference: str) -> bool:
    """Equal texts (but for case and closing period) or numbers; `reference` may list aliases joined by " or "."""
    return any(_normal(candidate) == _normal(alias) for alias in reference.split(" or "))


def _normal(text: str) -> str | float:
    text = text.strip().rstrip(".").casefold()
    try:
        return float(text)
    except ValueError:
        return " ".join(text.split())


def _act(oracle: Oracle, messages: Sequence[dict[str, str]]) -> str:
    """The next turn of an agent: the plan first, then the demonstration's steps."""
    turns = [message for message in messages if message["role"] != "system"]
    if [turn["role"] for turn in turns] != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
        raise BadRequest("an episode's messages must alternate between user and assistant")
    question = turns[0]["content"]
    if len(turns) == 1:
        return plan_text(oracle.plan(question))
    seen = [turn["content"].removeprefix("Observation: ") for turn in turns[4::2]]
    steps = [_step(turn["content"], observation) for turn, observation in zip(turns[3::2], seen, strict=True)]
    return step_text(*oracle.demonstrate(question, steps))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        match self.path:
            case "/health":
                self._send(200, {"status": "ok"})
            case "/v1/models":
                self._send(200, {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "score"}]})
            case _:
                self._refuse(404, f"nothing at {self.path}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/v1/chat/completions":
            return self._refuse(404, f"nothing at {self.path}")
        try:
            messages = _read_messages(body)
            content = reply(self.server.oracle, messages)
        except ScoreError as error:
            return self._refuse(400, str(error))
        return self._send(200, _completion(messages, content))

    def _refuse(self, status: int, reason: str) -> None:
        self._send(status, {"error": {"message": reason, "type": "invalid_request_error", "code": status}})

    def _send(self, status: int, payload: dict[str, Any]) -> None:
        body = json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Thousands of requests come per minute: no line for each."""


def _completion(messages: Sequence[dict[str, str]], content: str) -> dict[str, Any]:
    prompt_tokens, completion_tokens = sum(_tokens(m["content"]) for m in messages), _tokens(content)
    return {
        "id": f"chatcmpl-{time.time_ns():x}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": MODEL,
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


def _tokens(text: str) -> int:
    """Words and signs: about what a real tokenizer counts."""
    return len(re.findall(r"\w+|[^\w\s]", text))


class Server(ThreadingHTTPServer):
    """Serves one oracle; `server_address` tells the port if 0 was asked for."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], oracle: Oracle) -> None:
        super().__init__(address, _Handler)
        self.oracle = oracle


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m score.micro.server", description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--leap", type=float, default=0.4, help="probability that a demonstration skips a step")
    parser.add_argument("--seed", type=int, default=0, help="which steps the demonstrations skip")
    parser.add_argument(
        "--accuracy", type=float, default=1.0, help="probability that a located turn, or a rewritten one, is right"
    )
    args = parser.parse_args(argv)
    try:
        server = Server((args.host, args.port), Degraded(make_world(), args.leap, args.seed, args.accuracy))
    except OSError as error:
        raise ScoreError(
            f"cannot listen on {args.host}:{args.port} ({error.strerror}); choose another --port"
        ) from None
    print(f"micro teacher on http://{args.host}:{server.server_address[1]}/v1", flush=True)
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    run(main)
