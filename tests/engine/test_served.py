"""What an endpoint says that it serves, against what its entry names."""

import contextlib
import http.server
import json
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from score.config.schema import Model
from score.engine import open_engine, served
from score.errors import InfrastructureError, ScoreError

NOT_THERE = "http://127.0.0.1:9/v1"


@contextlib.contextmanager
def serving(status: int, body: object, **headers: str) -> Iterator[tuple[str, list]]:
    """(URL, what was asked) of a server with one answer."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Authorization"]))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

        def log_message(self, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
        server.shutdown()


def listing(*names: str) -> dict:
    return {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}


def entry(url: str | list[str], **more) -> Model:
    return Model(engine="endpoint", url=url, **{"path": "lab/large", "api_key_env": None} | more)


def test_the_model_that_is_named(monkeypatch):
    monkeypatch.setenv("LAB_KEY", "secret")
    with serving(200, listing("other", "lab/large")) as (url, asked):
        assert served.check(entry(url, api_key_env="LAB_KEY")) == f"{url}: serves lab/large"
        assert asked == [("/v1/models", "Bearer secret")]
        assert served.check(entry(url, path="alias", serves="other"))
    with serving(200, listing("models/lab/large")) as (url, _):
        assert served.check(entry(url))


def test_another_model_is_refused_with_what_is_served():
    with serving(200, listing("lab/small")) as (url, _):
        message = f"{url} serves 'lab/small', not 'lab/large'; correct `path` of its entry"
        with pytest.raises(ScoreError, match=message):
            served.check(entry(url))
        with pytest.raises(ScoreError, match=message):
            served.check(entry([NOT_THERE, url]))
        with pytest.raises(ScoreError, match="not 'lab/large'"), open_engine(entry(url), Path("log")):
            pytest.fail("a job asks it nothing")
    with serving(200, listing(*"abcdefgh")) as (url, _), pytest.raises(ScoreError, match=r"'d', 'e', \.\.\., not"):
        served.check(entry(url))


def test_a_key_that_is_not_taken():
    with serving(401, {}) as (url, _), pytest.raises(ScoreError, match=r"refuses to answer \(401 Unauthorized\); name"):
        served.check(entry(url))


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (404, {}, "has no list of its models (404 Not Found)"),
        (403, {}, "has no list of its models (403 Forbidden)"),
        (503, {}, "has no list of its models (503 Service Unavailable)"),
        (307, {}, "has no list of its models (307 Temporary Redirect)"),
        (200, b"<html>", "sends no list of its models that can be read"),
        (200, {"models": []}, "sends no list of its models that can be read"),
        (200, listing("a") | {"has_more": True}, "lists its models on several pages"),
    ],
)
def test_a_server_that_does_not_tell_fails_nothing(status, body, why, caplog):
    with serving(status, body, Location="http://elsewhere.example/") as (url, _):
        with pytest.raises(InfrastructureError) as told:
            served.check(entry(url))
        assert str(told.value) == f"{url} {why}"
        with caplog.at_level(logging.WARNING), open_engine(entry(url), Path("log")):
            assert f"not known what it serves: {url} {why}" in caplog.text


def test_a_server_that_cannot_be_reached_fails_nothing():
    with pytest.raises(InfrastructureError, match=r"127\.0\.0\.1:9/v1 cannot be reached .*refused"):
        served.check(entry(NOT_THERE))


@contextlib.contextmanager
def saying(reply: bytes) -> Iterator[str]:
    """URL of what answers with these bytes, HTTP or not."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with contextlib.suppress(OSError):
                asker, _ = listener.accept()
                asker.recv(2**16)
                asker.sendall(reply)
                asker.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        thread.join(10)


@pytest.mark.parametrize("reply", [b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{"])
def test_what_speaks_no_http_fails_nothing(reply):
    with saying(reply) as url, pytest.raises(InfrastructureError, match=r"cannot be reached|no list of"):
        served.check(entry(url))


def test_an_entry_whose_list_is_not_to_be_asked():
    with serving(401, {}) as (url, asked):
        assert served.check(entry(url, listed=False)) == f"{url}: not asked for its models (listed: false)"
        served.check_in_job(entry(url, listed=False))
        assert asked == []


def test_an_entry_without_a_name_asks_nothing():
    with serving(200, listing("lab/small")) as (url, asked):
        assert "it names no model" in served.check(entry(url, path=None))
        served.check_in_job(entry(url, path=None))
        assert asked == []


def test_localhost_is_another_machine_for_a_job_on_a_node():
    with serving(200, listing("lab/small")) as (url, asked):
        with pytest.raises(InfrastructureError, match="of the node that a job runs on"):
            served.check(entry(url), away=True)
        assert asked == []
    hosts = {"localhost:1": True, "[::1]:1": True, "10.0.0.1": False, "h.example": False}
    assert {host: served.is_of_this_node(f"http://{host}/v1") for host in hosts} == hosts
