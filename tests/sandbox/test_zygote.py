"""What a session does: observations, state, tools, answers, failures."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from score.errors import InfrastructureError, ScoreError
from score.sandbox.base import Limits
from score.sandbox.session import MAX_CALLS
from score.sandbox.zygote import PYTHON_VARIABLE, ZygotePool, own_python

LIMITS = Limits(timeout_s=2.0, memory_mb=1024, output_chars=400, file_mb=4)


@pytest.fixture(scope="module")
def pool():
    with ZygotePool(LIMITS) as pool:
        yield pool


@pytest.fixture
def session(pool):
    with pool.open({"web_search": lambda query: f"<{query}>"}) as session:
        yield session


def test_output_is_the_text_without_the_last_newline(session):
    assert session.run("print('a'); print('b')").text == "a\nb"


def test_nothing_printed_is_the_empty_text(session):
    observation = session.run("x = 1")
    assert (observation.text, observation.error, observation.answer, observation.calls) == ("", None, None, ())


def test_standard_error_is_dropped(session):
    assert session.run("import sys, warnings; warnings.warn('w'); print('e', file=sys.stderr); print('o')").text == "o"


def test_state_persists_over_steps(session):
    session.run("import math\nx = 41\ndef f(y): return x + y")
    assert session.run("print(f(1), math.pi > 3)").text == "42 True"


def test_sessions_do_not_share_state(pool):
    with pool.open() as one, pool.open() as other:
        one.run("import math; x = 1; math.pi = 3; open('file', 'w').write('x')")
        assert (
            other.run("print('x' in globals())\nimport math, os\nprint(math.pi == 3, os.listdir())").text
            == "False\nFalse []"
        )


def test_an_exception_is_its_last_line_after_the_prints(session):
    observation = session.run("print('before')\nprint(undefined)")
    assert observation.text == "before\nNameError: name 'undefined' is not defined"
    assert observation.error == "exception"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("print(1", "SyntaxError: '(' was never closed"),
        ("def f():\nx", "IndentationError: expected an indented block"),
        ("x = 'a\0b'", "null bytes"),
        ("x = '\ud800'", "UnicodeEncodeError"),
        ("\ud800 = 1", "UnicodeEncodeError"),
        ("raise SystemExit('bye')", "SystemExit: bye"),
        ("exit()", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("input('name? ')", "EOFError"),
        ("class E(Exception):\n    def __str__(self): 1/0\nraise E", "E: <exception str() failed>"),
        ("def f(): f()\nf()", "RecursionError"),
        ("import json; json.loads('{')", "json.decoder.JSONDecodeError"),
    ],
)
def test_every_way_to_fail_is_a_clear_observation(session, code, text):
    session.run("kept = 1")
    observation = session.run(code)
    assert text in observation.text
    assert observation.error == "exception"
    assert session.run("print(kept)").text == "1"


def test_lone_surrogates_in_output_become_writable_text(session):
    observation = session.run("print('a\\ud800b')\nfinal_answer_print('\\udfff')")
    assert observation.text == "a\\ud800b\n\\udfff"
    assert observation.answer == "\\udfff"


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_survives_the_way_out_and_the_way_to_a_tool(session, text):
    observation = session.run(f"final_answer_print(web_search({text!r}))")
    assert observation.answer == f"<{text}>"
    if len(text) + 2 <= LIMITS.output_chars:
        assert observation.text == f"<{text}>".rstrip("\n")


def test_long_output_is_cut_in_the_middle(session):
    text = session.run("print('a' * 1000 + 'b' * 1000, end='')").text
    half = LIMITS.output_chars // 2
    assert text == "a" * half + "\n... [1600 characters left out] ...\n" + "b" * half


@given(st.integers(0, 1200))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_cut_says_exactly_how_much_is_missing(session, count):
    text = session.run(f"for i in range({count}): print('x', end='')").text
    missing = max(0, count - LIMITS.output_chars)
    assert text.count("x") == count - missing
    assert (f"[{missing} characters" in text) == (missing > 0)


def test_the_exception_is_kept_when_the_output_is_cut(session):
    text = session.run("print('start'); print('z' * 10**6); 1/0").text
    assert text.startswith("start\n")
    assert text.endswith("ZeroDivisionError: division by zero")


def test_tools_take_any_expression_in_loops_and_functions(session):
    observation = session.run(
        "names = ['Ada', \"O'Hara\"]\n"
        "def ask(name): return web_search(f'who is {name}?')\n"
        "for name in names: print(ask(name))\n"
        "print(web_search(query='x' + str(1)), [web_search(q) for q in 'ab'])"
    )
    assert observation.text == "<who is Ada?>\n<who is O'Hara?>\n<x1> ['<a>', '<b>']"
    assert observation.calls == (("web_search", 5),)


def test_threads_of_the_code_may_call_tools(session):
    code = (
        "from concurrent.futures import ThreadPoolExecutor as T\nwith T(8) as t: print(*t.map(web_search, 'abcdefgh'))"
    )
    assert session.run(code).text == "<a> <b> <c> <d> <e> <f> <g> <h>"


def test_a_thread_left_behind_cannot_confuse_later_steps(session):
    session.run(
        "import threading\ndef spin():\n    while True:\n"
        "        try: web_search('t')\n        except RuntimeError: pass\n"
        "threading.Thread(target=spin, daemon=True).start()"
    )
    for i in range(5):
        time.sleep(0.02)
        observation = session.run(f"print({i}, web_search('{i}'))")
        assert observation.text == f"{i} <{i}>"
        assert observation.calls == (("web_search", 1),)  # the old thread spends nothing of a later step's calls


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("web_search()", "takes exactly one argument (0 given)"),
        ("web_search('a', 5)", "takes exactly one argument (2 given)"),
        ("web_search('a' * 10**6)", "at most 20000 characters"),
        ("final_answer_print()", "takes exactly one argument"),
        ("final_answer_print('a' * 10**6)", "at most 20000 characters"),
    ],
)
def test_wrong_calls_are_the_codes_own_exceptions(session, call, text):
    observation = session.run(call)
    assert text in observation.text
    assert (observation.error, observation.answer) == ("exception", None)


def test_tool_calls_of_a_step_are_bounded(session):
    observation = session.run("for i in range(10**6): web_search(str(i))")
    assert f"RuntimeError: web_search() can be called at most {MAX_CALLS} times in one step" in observation.text
    assert observation.calls == (("web_search", MAX_CALLS),)
    assert session.run("print(web_search('again'))").text == "<again>"


@pytest.mark.parametrize(
    "error", [InfrastructureError("down"), ValueError("a bug"), OSError("a bug"), TimeoutError("a bug")]
)
def test_a_failing_tool_is_raised_and_never_shown_to_the_model(pool, error):
    failing = [error]

    def search(query):
        if failing:
            raise failing.pop()
        return "found"

    with pool.open({"web_search": search}) as session:
        session.run("x = 5")
        with pytest.raises(type(error)):
            session.run("x = 6\nprint(web_search('q'))")
        assert session.run("print(x, web_search('q'))").text == "5 found"


def test_time_in_a_tool_is_not_the_codes_time(pool):
    with pool.open({"web_search": lambda q: time.sleep(LIMITS.timeout_s + 0.3) or "slow"}) as session:
        assert session.run("print(web_search('q'))").text == "slow"


def test_the_answer_is_printed_and_ends_the_step(session):
    observation = session.run("def solve():\n    final_answer_print(6 * 7)\nsolve()\nprint('not reached')")
    assert (observation.text, observation.answer, observation.error) == ("42", "42", None)


def test_an_answer_counts_only_when_executed(session):
    assert (
        session.run("# final_answer_print(1)\nif False: final_answer_print(2)\nprint('final_answer_print(3)')").answer
        is None
    )


def test_an_answer_with_the_word_error_is_an_answer(session):
    observation = session.run("final_answer_print('Error: failed')")
    assert (observation.answer, observation.error) == ("Error: failed", None)


def test_a_bare_except_cannot_replace_the_answer(session):
    code = "try:\n    final_answer_print(1)\nexcept:\n    print('x')\n    final_answer_print(2)"
    observation = session.run(code)
    assert (observation.text, observation.answer) == ("1", "1")
    assert session.run("print('next')").text == "next"


def test_an_answer_before_an_exception_stands_and_one_after_it_does_not_exist(session):
    assert session.run("1/0\nfinal_answer_print(1)").answer is None
    observation = session.run("try:\n    final_answer_print(1)\nfinally:\n    1/0")
    assert (observation.text, observation.answer, observation.error) == ("1", "1", None)


def test_objects_are_answered_as_their_text(session):
    assert session.run("import sympy\nfinal_answer_print(sympy.Rational(2, 6))").answer == "1/3"


def test_a_timeout_says_so_and_the_next_step_has_the_earlier_variables(pool):
    asked = []
    with pool.open({"web_search": lambda q: asked.append(q) or "found"}) as session:
        session.run("import random\nx = [random.random(), web_search('once')]")
        session.run("y = 1\nraise ValueError('late')")
        before = session.run("print(x, y)").text
        started = time.monotonic()
        observation = session.run("y = 2\nprint('lost')\nwhile True: pass")
        assert time.monotonic() - started < LIMITS.timeout_s + 1
        assert observation.text == "TimeoutError: the code ran longer than 2 s and was stopped."
        assert observation.error == "timeout"
        assert session.run("print(x, y)").text == before
        assert asked == ["once"]  # the replay answers tool calls from memory


def test_every_session_draws_the_same_random_numbers(pool):
    code = "import random, numpy\nprint(random.random(), numpy.random.rand(), {'a', 'b', 'c', 'd'}, hash('x'))"
    with pool.open() as one, pool.open() as other:
        assert one.run(code).text == other.run(code).text


def test_many_sessions_step_side_by_side(pool):
    served = set()
    sessions = [pool.open({"web_search": lambda q: served.add(threading.get_ident()) or q.upper()}) for _ in range(40)]
    try:
        pool.run_many([(session, f"n = {i}") for i, session in enumerate(sessions)])
        observations = pool.run_many([(session, "print(n, web_search('q'))") for session in sessions])
        assert [o.text for o in observations] == [f"{i} Q" for i in range(40)]
        assert len(served) > 1
    finally:
        for session in sessions:
            session.close()


def test_run_many_keeps_a_failure_in_its_place(pool):
    def fail(query):
        raise InfrastructureError("search is down")

    with pool.open({"web_search": fail}) as bad, pool.open() as good:
        outcomes = pool.run_many([(good, "print(1)"), (bad, "web_search('q')"), (pool.open(), "print(2)")])
    assert [outcomes[0].text, str(outcomes[1]), outcomes[2].text] == ["1", "search is down", "2"]
    assert isinstance(outcomes[1], InfrastructureError)


def test_sessions_run_from_an_event_loop(pool):
    async def run_all():
        sessions = [pool.open() for _ in range(12)]
        return await asyncio.gather(*(asyncio.to_thread(s.run, f"print({i})") for i, s in enumerate(sessions)))

    assert [observation.text for observation in asyncio.run(run_all())] == [str(i) for i in range(12)]


def test_a_step_is_fast(session):
    session.run("print(1 + 1)")
    times = sorted(session.run("print(1 + 1)").seconds for _ in range(101))
    assert times[50] < 0.005


def test_a_closed_session_refuses(pool):
    session = pool.open()
    session.close()
    session.close()
    with pytest.raises(RuntimeError, match="closed"):
        session.run("1")


def test_sessions_of_a_closed_pool_fail_as_infrastructure():
    with ZygotePool(LIMITS) as pool:
        session = pool.open()
    with pytest.raises(InfrastructureError):
        session.run("print(1)")
    session.close()
    with pytest.raises(InfrastructureError):
        pool.open()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"require": ("moat",)}, r"unknown layer 'moat'.*no_network"),
        ({"python": "/nowhere/python"}, r"cannot start the interpreter /nowhere/python: No such file"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ScoreError, match=message):
        ZygotePool(LIMITS, **arguments)


def test_the_own_interpreter_is_that_of_the_variable_or_of_the_own_environment(monkeypatch, tmp_path):
    monkeypatch.setenv(PYTHON_VARIABLE, sys.executable)
    assert own_python() == sys.executable
    monkeypatch.setenv(PYTHON_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(ScoreError, match=r"no interpreter at .*none; `make sandbox` makes one"):
        own_python()


def test_the_versions_of_what_runs_a_step_are_known(pool):
    assert re.fullmatch(r"python 3\.\d+\.\d+ numpy \d\S+ sympy \d\S+", pool.versions)


def test_an_interpreter_without_numpy_is_named(tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {getattr(sys, "_base_executable", sys.executable)} -S "$@"\n')
    python.chmod(0o755)
    with pytest.raises(ScoreError, match=r"did not start: .*No module named 'numpy'.*envs/sandbox"):
        ZygotePool(LIMITS, python=str(python))
