"""The Serper client against a real HTTP server on this machine."""

from __future__ import annotations

import json
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from score.errors import ScoreError
from score.search.base import RateLimited, Result, SearchError
from score.search.serper import KEY_VARIABLE, Serper

FOUND = json.dumps({"organic": [{"title": f"T{i}", "snippet": f"S{i}", "link": f"L{i}"} for i in range(5)]})
NOTHING = json.dumps({"searchParameters": {"q": "x"}, "organic": []})


class Server:
    """Answers its requests with a script of (status, headers, body); the last entry is repeated. None hangs up."""

    def __init__(self):
        self.script, self.requests = [(200, {}, FOUND)], []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                server.requests.append((headers, json.loads(body)))
                answer = server.script.pop(0) if len(server.script) > 1 else server.script[0]
                if answer is None:
                    self.close_connection = True
                    return
                status, headers, text = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def backend(self, **settings):
        url = f"http://127.0.0.1:{self.http.server_port}/search"
        return Serper("secret-key", base_url=url, **{"backoff_s": 0.001, "retries": 2, **settings})


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def test_the_request_and_the_results_are_as_documented(server):
    assert server.backend().search("who is it", 3) == [Result(f"T{i}", f"S{i}", f"L{i}") for i in range(3)]
    ((headers, body),) = server.requests
    assert headers["x-api-key"] == "secret-key"
    assert body == {"q": "who is it", "num": 3, "gl": "us", "hl": "en"}


def test_no_results_are_an_empty_list(server):
    server.script = [(200, {}, NOTHING)]
    assert server.backend().search("q", 3) == []


@pytest.mark.parametrize("refusal", [(429, {}, ""), (500, {}, ""), (503, {"Retry-After": "0"}, ""), None])
def test_a_passing_failure_is_retried(server, refusal):
    server.script = [refusal, refusal, (200, {}, FOUND)]
    assert len(server.backend().search("q", 5)) == 5
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("refusal", "error"), [((429, {}, ""), RateLimited), ((500, {}, ""), SearchError), (None, SearchError)]
)
def test_a_lasting_failure_is_raised_by_its_name_after_bounded_tries(server, refusal, error):
    server.script = [refusal]
    with pytest.raises(SearchError) as caught:
        server.backend().search("q", 5)
    assert type(caught.value) is error
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "body", ["<html>sign in</html>", "[]", '{"message": "out of order"}', '{"organic": null}', '{"organic": [1]}']
)
def test_an_unexpected_answer_is_an_error_and_not_an_empty_result(server, body):
    server.script = [(200, {}, body)]
    with pytest.raises(SearchError, match="unexpected form"):
        server.backend().search("q", 5)


def test_retry_after_is_waited_for_in_both_forms(server):
    for in_seconds in (
        lambda s: str(s),
        lambda s: format_datetime(datetime.now(UTC) + timedelta(seconds=s), usegmt=True),
    ):
        server.script = [(429, {"Retry-After": in_seconds(2)}, ""), (200, {}, FOUND)]
        started = time.monotonic()
        server.backend().search("q", 1)
        assert 0.9 < time.monotonic() - started < 10


def test_a_long_retry_after_is_not_waited_for(server):
    server.script = [(429, {"Retry-After": "3600"}, "")]
    with pytest.raises(RateLimited):
        server.backend().search("q", 1)
    assert len(server.requests) == 1


def test_a_silent_server_times_out():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        backend = Serper(
            "k", base_url=f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout_s=0.1, retries=1, backoff_s=0
        )
        with pytest.raises(SearchError, match="Timeout"):
            backend.search("q", 1)


def test_a_rejected_key_is_the_users_mistake_and_is_not_shown(server):
    server.script = [(403, {}, "Unauthorized")]
    with pytest.raises(ScoreError, match=KEY_VARIABLE) as caught:
        server.backend().search("q", 1)
    assert "secret-key" not in str(caught.value)
    assert len(server.requests) == 1


def test_another_refusal_is_not_retried_and_quoted(server):
    server.script = [(400, {}, '{"message": "Not enough credits"}')]
    with pytest.raises(SearchError, match="Not enough credits"):
        server.backend().search("q", 1)
    assert len(server.requests) == 1


def test_the_key_comes_from_the_environment_and_its_absence_is_named(monkeypatch, server):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(ScoreError, match=KEY_VARIABLE):
        Serper()
    monkeypatch.setenv(KEY_VARIABLE, "from-environment\n")
    Serper(base_url=f"http://127.0.0.1:{server.http.server_port}/").search("q", 1)
    assert server.requests[0][0]["x-api-key"] == "from-environment"
    monkeypatch.setenv(KEY_VARIABLE, "two\nlines")
    with pytest.raises(ScoreError, match="characters"):
        Serper()
