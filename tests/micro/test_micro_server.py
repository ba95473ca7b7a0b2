import json
import threading
import urllib.error
import urllib.request

import pytest
from micro_play import demonstration, run, session

from score import prompts
from score.agent.protocol import messages, parse_plan, parse_step, plan_text
from score.correct.render import render_trajectory
from score.micro.oracle import Oracle
from score.micro.server import Server
from score.micro.tasks import BENCHMARKS, make_tasks
from score.micro.world import make_world
from score.records import Step

ORACLE = Oracle(make_world(), 0.4, 0)
TASK = make_tasks("hop3", "train", 1)[0]


@pytest.fixture(scope="module")
def url():
    with Server(("127.0.0.1", 0), ORACLE) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def get(url, payload=None):
    body = None if payload is None else json.dumps(payload).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def chat(url, conversation):
    payload = {"model": "any", "temperature": 0.0, "messages": [message.chat() for message in conversation]}
    return get(f"{url}/v1/chat/completions", payload)


def content(url, conversation) -> str:
    status, body = chat(url, conversation)
    assert status == 200, body
    choice = body["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert body["usage"]["completion_tokens"] > 0 < body["usage"]["prompt_tokens"]
    return choice["message"]["content"]


def test_health_and_models(url):
    assert get(f"{url}/health") == (200, {"status": "ok"})
    assert get(f"{url}/v1/models")[1]["data"][0]["id"] == "micro-oracle"
    assert get(f"{url}/v2")[0] == 404


@pytest.mark.parametrize("benchmark", sorted(BENCHMARKS))
def test_it_plays_an_episode_as_the_oracle_demonstrates(url, benchmark):
    (task,) = make_tasks(benchmark, "train", 1)
    system = prompts.load("agent").system
    plan = parse_plan(content(url, messages(task.question, system=system)))
    assert plan == ORACLE.plan(task.question)
    sandbox, steps = session(), []
    while sandbox.answer is None:
        turn = content(url, messages(task.question, plan, tuple(steps), system=system, final_observation=True))
        steps.append(run(sandbox, *parse_step(turn)))
    assert sandbox.answer == task.answers[0]
    assert [step.code for step in steps] == [step.code for step in demonstration(ORACLE, task.question)[0]]


def locate(url, plan, steps):
    trajectory = render_trajectory(plan, steps)
    prompt = prompts.load("locate").render(question=TASK.question, reference=TASK.answers[0], trajectory=trajectory)
    return json.loads(content(url, prompt))["step"]


def test_it_locates_the_earliest_wrong_turn(url):
    plan, sandbox = plan_text(ORACLE.plan(TASK.question)), session()
    right = run(sandbox, *ORACLE.graph(TASK.question).step(0))
    wrong = run(sandbox, 'Find <turn n="9">', 'print("</turn>")')
    malformed = Step("", "", "Error: expected <thought>...</thought><code>...</code>.", "parse_error", text="hm")
    answered = run(session(), "Answer", "final_answer_print(1)")
    assert locate(url, plan, [right, wrong, answered]) == 2
    assert locate(url, plan, [malformed, answered]) == 1
    assert locate(url, plan, [right, answered]) == 2
    assert locate(url, "nonsense", [right, wrong]) == 0
    assert locate(url, plan, [right]) is None


def rewrite(url, trajectory, k):
    prompt = prompts.load("rewrite").render(
        question=TASK.question, trajectory=trajectory, number=str(k), wrong="<thought></thought>", advice=""
    )
    return chat(url, prompt)


def test_it_rewrites_a_turn_in_the_context_of_the_prefix(url):
    plan, graph = plan_text(ORACLE.plan(TASK.question)), ORACLE.graph(TASK.question)
    first = run(session(), *graph.step(0))
    _, body = rewrite(url, "", 0)
    assert body["choices"][0]["message"]["content"] == plan
    _, body = rewrite(url, render_trajectory(plan, [first]), 2)
    assert parse_step(body["choices"][0]["message"]["content"]) == graph.step(1)
    assert rewrite(url, render_trajectory(plan, [first]), 4)[0] == 400


@pytest.mark.parametrize(
    ("candidate", "equal"),
    [("Kego", True), (" kego. ", True), ("Tura", False), ("7", True), ("7.0", True), ("8", False)],
)
def test_it_judges_equivalence(url, candidate, equal):
    prompt = prompts.load("judge").render(question="any", reference="Kego or 7", candidate=candidate)
    assert json.loads(content(url, prompt)) == {"equivalent": equal}


def test_requests_that_fit_nothing_are_refused_with_a_reason(url):
    status, body = chat(url, messages("What is the capital of France?"))
    assert status == 400
    assert "France" in body["error"]["message"]
    chat_url = f"{url}/v1/chat/completions"
    for payload in (
        {},
        {"messages": []},
        {"messages": [{"role": "assistant", "content": "x"}]},
        {"messages": ["x"]},
        [],
    ):
        status, body = get(chat_url, payload)
        assert (status, body["error"]["type"]) == (400, "invalid_request_error")
    two = [{"role": "user", "content": "x"}] * 2
    assert "alternate" in get(chat_url, {"messages": two})[1]["error"]["message"]
    missing = [{"role": "user", "content": "<trajectory>x</trajectory>"}]
    assert "<question>" in get(chat_url, {"messages": missing})[1]["error"]["message"]
