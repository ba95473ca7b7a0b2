"""All search services on the web, against a real HTTP server on this machine that misbehaves on purpose."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from score.errors import ScoreError
from score.search import http, open_backend
from score.search.base import AccessDenied, RateLimited, Refused, Result, SearchError, TimedOut
from score.search.http import Tries
from search.server import HANG_UP, Answer, Request, Server

SECRET = "secret-key-1"
QUICK = Tries(timeout_s=5, retries=2, backoff_s=0.001)


@dataclass(frozen=True)
class Service:
    """One backend's documented forms. `body` and `params` are what it is asked for "who is it", k = 3."""

    name: str
    path: str
    key: str | None = None
    authorised_by: dict = field(default_factory=dict)
    body: dict | None = None
    params: dict = field(default_factory=dict)
    strange: tuple = ()

    def open(self, url: str, tries: Tries = QUICK):
        return open_backend(self.name, url=url + self.path, tries=tries)

    def answer(self, results: list[Result]) -> str:
        def row(r):
            return {
                "serper": {"title": r.title, "snippet": r.snippet, "link": r.url, "position": 1},
                "tavily": {"title": r.title, "content": r.snippet, "url": r.url, "score": 0.5, "raw_content": None},
                "searxng": {"title": r.title, "content": r.snippet, "url": r.url, "engine": "e", "score": 1.0},
                "retrieval": {"document": {"id": "1", "contents": f'"{r.title}"\n{r.snippet}'}, "score": 3.5},
            }[self.name]

        rows = [row(r) for r in results]
        return json.dumps(
            {
                "serper": {"searchParameters": {"q": "x"}, "organic": rows},
                "tavily": {"query": "x", "answer": None, "results": rows, "response_time": "1.0"},
                "searxng": {"query": "x", "number_of_results": 0, "results": rows, "unresponsive_engines": []},
                "retrieval": {"result": [rows]},
            }[self.name]
        )


SERVICES = [
    Service(
        "serper", "/search", "SERPER_API_KEY", {"x-api-key": SECRET},
        body={"q": "who is it", "num": 3, "gl": "us", "hl": "en"},
        strange=('{"message": "out of order"}', '{"organic": null}', '{"organic": {}}', '{"organic": [1]}'),
    ),
    Service(
        "tavily", "/search", "TAVILY_API_KEY", {"authorization": f"Bearer {SECRET}"},
        body={"query": "who is it", "max_results": 3, "search_depth": "basic"},
        strange=('{"detail": {"error": "x"}}', '{"results": ""}', '{"results": [{"title": 3}]}'),
    ),
    Service(
        "searxng", "/search", params={"q": "who is it", "format": "json", "language": "en"},
        strange=('{"results": null}', '{"results": [["a"]]}'),
    ),
    Service(
        "retrieval", "/retrieve", body={"queries": ["who is it"], "topk": 3, "return_scores": True},
        strange=('{"result": []}', '{"result": [[], []]}', '{"result": [{}]}', '{"result": [[{"document": {}}]]}'),
    ),
]  # fmt: skip


@pytest.fixture(params=SERVICES, ids=lambda service: service.name)
def service(request, monkeypatch):
    for service in SERVICES:
        if service.key:
            monkeypatch.setenv(service.key, SECRET)
    return request.param


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


def results(service: Service, n: int) -> list[Result]:
    url = "" if service.name == "retrieval" else "https://a.example/"
    return [Result(f"T{i}", f"S{i}", url and f"{url}{i}") for i in range(n)]


def found(service: Service, n: int = 5) -> Answer:
    return Answer(body=service.answer(results(service, n)))


def test_the_request_and_the_results_are_as_documented(service, server):
    server.script = [found(service)]
    assert service.open(server.url).search("who is it", 3) == results(service, 3)
    (request,) = server.requests
    method = "GET" if service.params else "POST"
    assert request == Request(method, service.path, service.params, request.headers, service.body)
    assert service.authorised_by.items() <= request.headers.items()


def test_no_results_are_an_empty_list(service, server):
    server.script = [found(service, 0)]
    assert service.open(server.url).search("q", 3) == []


PASSING = [
    Answer(429),
    Answer(500),
    Answer(503, headers={"Retry-After": "0"}),
    Answer(200, '{"torn', promised=1000),
    HANG_UP,
]


@pytest.mark.parametrize("failure", PASSING)
def test_a_passing_failure_is_retried(service, server, failure):
    server.script = [failure, failure, found(service)]
    backend = service.open(server.url)
    assert len(backend.search("q", 5)) == 5
    assert len(server.requests) == backend.sent == 3


@pytest.mark.parametrize(
    ("failure", "error"),
    list(zip(PASSING, (RateLimited, *[SearchError] * 4), strict=True)),
    ids=lambda value: str(value)[:24],
)
def test_a_lasting_failure_is_raised_by_its_name_after_bounded_tries(service, server, failure, error):
    server.script = [failure]
    with pytest.raises(SearchError) as caught:
        service.open(server.url).search("q", 5)
    assert type(caught.value) is error
    assert len(server.requests) == 3


def test_an_unexpected_answer_is_an_error_and_not_an_empty_result(service, server):
    for body in ("<html>sign in</html>", "[]", "null", '"text"', "", "[" * 5000, *service.strange):
        server.script = [Answer(200, body)]
        with pytest.raises(SearchError, match="unexpected form"):
            service.open(server.url).search("q", 5)
    assert all(request.body == server.requests[0].body for request in server.requests)


def test_waits_double_and_a_header_goes_before_them(service, server, monkeypatch):
    waits = []
    monkeypatch.setattr(http.time, "sleep", waits.append)
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    answers = [{"Retry-After": "7"}, {}, {"Retry-After": later}, {"Retry-After": "soon"}]
    server.script = [*(Answer(429, headers=headers) for headers in answers), found(service)]
    service.open(server.url, Tries(retries=4, backoff_s=0.5)).search("q", 1)
    waits = [wait for wait in waits if wait]  # the server's own waits of no length
    assert waits[0] == 7
    assert waits[1] == 1.0
    assert 25 < waits[2] <= 30
    assert waits[3] == 4.0


def test_a_long_retry_after_is_not_waited_for(service, server):
    server.script = [Answer(429, headers={"Retry-After": "3600"})]
    with pytest.raises(RateLimited):
        service.open(server.url).search("q", 1)
    assert len(server.requests) == 1


def test_a_silent_server_is_a_time_out(service):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        backend = service.open(url, Tries(timeout_s=0.1, retries=1, backoff_s=0))
        with pytest.raises(TimedOut):
            backend.search("q", 1)
        assert backend.sent == 2


def test_a_server_that_drips_is_a_time_out(service, server):
    server.script = [Answer(body=" " * 100, every_s=0.05)]
    with pytest.raises(TimedOut):
        service.open(server.url, Tries(timeout_s=0.2, retries=0)).search("q", 1)


def test_an_endless_answer_is_given_up(service, server, monkeypatch):
    monkeypatch.setattr(http, "_LONGEST_BODY", 1000)
    server.script = [Answer(body=" " * 5000)]
    with pytest.raises(SearchError, match="more than 1000 bytes"):
        service.open(server.url).search("q", 1)


@pytest.mark.parametrize("status", [401, 403])
def test_who_may_not_ask_is_told_at_once_and_no_key_is_shown(service, server, status):
    server.script = [Answer(status, f"key {SECRET} is unknown")]
    with pytest.raises((AccessDenied, Refused)) as caught:
        service.open(server.url).search("q", 1)
    assert len(server.requests) == 1
    if service.key:
        assert SECRET not in str(caught.value)
        assert isinstance(caught.value, AccessDenied), "the job ends: no other query would be answered"
        assert service.key in str(caught.value)


@pytest.mark.parametrize("status", [400, 404, 422])
def test_another_refusal_is_not_retried_and_quoted_without_the_key(service, server, status):
    for padding in ("", "x" * 150):  # which cuts the quotation in the middle of the key
        server.script = [Answer(status, f'{{"message": "Not enough credits {padding} for {SECRET}"}}')]
        with pytest.raises(Refused, match="Not enough credits") as caught:
            service.open(server.url).search("q", 1)
        assert not service.key or SECRET[:4] not in str(caught.value)
    assert len(server.requests) == 2


def test_a_redirect_is_not_followed(service, server):
    server.script = [Answer(302, headers={"Location": f"{server.url}/elsewhere"})]
    with pytest.raises(SearchError, match="HTTP 302"):
        service.open(server.url).search("q", 1)
    assert len(server.requests) == 1


def test_half_a_surrogate_pair_in_an_answer_is_replaced(service, server):
    server.script = [Answer(body=service.answer([Result("T\ud800", "S", "")]))]
    assert service.open(server.url).search("q", 1) == [Result("T?", "S", "")]


@pytest.mark.parametrize("service", [s for s in SERVICES if s.key], ids=lambda s: s.name)
def test_the_key_comes_from_the_environment_and_its_absence_is_named(monkeypatch, server, service):
    monkeypatch.delenv(service.key, raising=False)
    with pytest.raises(ScoreError, match=service.key):
        open_backend(service.name)
    monkeypatch.setenv(service.key, f"{SECRET}\n")
    server.script = [found(service)]
    service.open(server.url).search("q", 1)
    assert service.authorised_by.items() <= server.requests[0].headers.items()
    monkeypatch.setenv(service.key, "two\nlines")
    with pytest.raises(ScoreError, match="characters") as caught:
        open_backend(service.name)
    assert "two" not in str(caught.value)


def test_a_spent_plan_ends_the_job(monkeypatch, server):
    monkeypatch.setenv("TAVILY_API_KEY", SECRET)
    server.script = [Answer(432, '{"detail": {"error": "This request exceeds your plan\'s set usage limit."}}')]
    with pytest.raises(AccessDenied, match="limit"):
        open_backend("tavily", url=server.url, tries=QUICK).search("q", 1)


@pytest.mark.parametrize(
    ("reasons", "error"),
    [
        (["timeout", "too many requests"], SearchError),
        (["Suspended: too many requests", "CAPTCHA"], RateLimited),
    ],
)
def test_engines_that_all_failed_are_not_no_results(server, reasons, error):
    silent = [[f"engine{i}", reason] for i, reason in enumerate(reasons)]
    server.script = [Answer(body=json.dumps({"results": [], "unresponsive_engines": silent}))]
    with pytest.raises(SearchError, match="engine0") as caught:
        open_backend("searxng", url=server.url, tries=QUICK).search("q", 1)
    assert type(caught.value) is error
    assert len(server.requests) == 3


def test_a_servers_address_may_have_its_path_or_not(server):
    for name, path in (("searxng", "/search"), ("retrieval", "/retrieve")):
        for url in (server.url, f"{server.url}/", f"{server.url}{path}", f"{server.url}/below{path}"):
            server.script = [Answer(body='{"results": [], "result": [[]]}')]
            assert open_backend(name, url=url).search("q", 1) == []
    assert [request.path for request in server.requests] == [
        *["/search"] * 3, "/below/search", *["/retrieve"] * 3, "/below/retrieve",
    ]  # fmt: skip


def test_a_password_in_an_address_is_used_and_not_shown(server):
    url = server.url.replace("http://", f"http://user:{SECRET}@")
    server.script = [Answer(500, SECRET)]
    with pytest.raises(SearchError) as caught:
        open_backend("retrieval", url=url, tries=QUICK).search("q", 1)
    assert server.requests[0].headers["authorization"].startswith("Basic ")
    assert SECRET not in str(caught.value)


def test_an_address_that_is_none_is_named():
    with pytest.raises(ScoreError, match="the address of backend retrieval is no URL"):
        open_backend("retrieval", url="http://host:port")


def test_passages_are_cut(server):
    server.script = [Answer(body=json.dumps({"result": [[{"document": {"contents": '"T"\n' + "word " * 9}}]]}))]
    backend = open_backend("retrieval", url=server.url, snippet_chars=9)
    assert backend.search("q", 1) == [Result("T", "word word")]
