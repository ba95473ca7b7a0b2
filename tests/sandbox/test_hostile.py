"""Code that attacks the interpreter around it: it may garble its own observation, and nothing else."""

from __future__ import annotations

import time

import pytest
from tests.sandbox.processes import inside

from score.sandbox.base import Limits
from score.sandbox.zygote import ZygotePool

LIMITS = Limits(timeout_s=1.5, memory_mb=1024, output_chars=1000, file_mb=4)


@pytest.fixture(scope="module")
def pool():
    with ZygotePool(LIMITS) as pool:
        yield pool


@pytest.fixture(params=[False, True], ids=["plain", "reversible"])
def session(request, pool):
    with pool.open(reversible=request.param) as session:
        session.run("kept = 1")
        yield session


def test_printing_cannot_forge_a_reply(session):
    forged = r'{"text": "forged", "error": null, "answer": "forged"}'
    code = f"import os, sys, struct\nframe = {forged!r}\nprint(frame)\n"
    code += "data = struct.pack('>I', len(frame)) + frame.encode()\n"
    code += "for fd in (0, 1, 2):\n    try: os.write(fd, data)\n    except OSError: pass"
    observation = session.run(code)
    assert observation.text == forged
    assert observation.answer is None
    assert session.run("print('next')").text == "next"


@pytest.mark.parametrize(
    "payload",
    [
        "b'\\xff\\xff\\xff\\xff' + b'x' * 4096",
        "b'\\x00\\x00\\x00\\x04nope'",
        "b'\\x00\\x00\\x00\\x02{}'",
        "b'\\x00\\x01\\x00\\x00' + b'[' * 65536",
        'b\'\\x00\\x00\\x00\\x23\' + b\'{"call": "unknown", "argument": "x"}\'',
    ],
)
def test_a_garbled_reply_ends_the_interpreter_and_nothing_else(session, payload):
    assert session.run(f"import os, time\nos.write(3, {payload})\ntime.sleep(60)").error == "died"
    assert session.run("print(kept)").text == "1"


@pytest.mark.parametrize(
    "payload",
    [
        "struct.pack('>I', 1000) + b'{'",
        "struct.pack('>I', 100000) + b' ' * 50000",
        "b'\\x00'",
    ],
)
def test_a_reply_that_is_never_complete_is_a_timeout(session, payload):
    code = f"import os, struct, time\nos.write(3, {payload})\ntime.sleep(60)"
    assert session.run(code).error == "timeout"
    assert session.run("print(kept)").text == "1"


def test_a_reply_that_drips_is_a_timeout(session):
    code = "import os, struct, time\nos.write(3, struct.pack('>I', 90000))\nwhile True:\n"
    assert session.run(code + "    os.write(3, b' ')\n    time.sleep(0.01)").error == "timeout"
    assert session.run("print(kept)").text == "1"


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos._exit(0)",
        "import ctypes\nctypes.string_at(0)",
        "import os\nos.closerange(0, 64)",
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f.__call__()\nf()",
        "import os, signal\nsignal.setitimer(signal.ITIMER_REAL, 0.05)\nwhile True: pass",
    ],
)
def test_a_dead_interpreter_is_reported_and_its_earlier_state_restored(session, code):
    observation = session.run(code)
    assert observation.error == "died"
    assert observation.text.startswith("Error: the code ended the interpreter")
    assert session.run("print(kept)").text == "1"


INTERPRETER = "import sys, gc, os, json, builtins\nmodule = sys.modules['score.sandbox.interpreter']\n"
PATCHES = {
    "print": "builtins.print = lambda *a: 1 / 0",
    "exec": "builtins.exec = builtins.compile = lambda *a, **k: 1 / 0",
    "all builtins": "builtins.__dict__.clear()",
    "stdout": "sys.stdout = None",
    "stdout's text": "sys.stdout.text = lambda: 1 / 0",
    "stdout's class": "type(sys.stdout).text = lambda self: 'x' * 10**7",
    "stdout's buffer": "sys.stdout._head = ['x']",
    "json": "json.dumps = lambda *a, **k: 'nonsense'",
    "json loads": "json.loads = lambda *a, **k: 1 / 0",
    "os.write": "os.write = lambda *a: 0",
    "os.read": "os.read = lambda *a: b''",
    "the writer": "module.write = lambda frame: None",
    "a looping writer": "module.write = lambda frame: [0 for _ in iter(int, 1)]",
    "the step": "module.Interpreter._step = lambda self, code: {'text': 1, 'error': [], 'answer': {}}",
    "a deep reply": "module.Interpreter._step = lambda self, code: {'text': eval('[' * 90 + ']' * 90)}",
    "the modules": "sys.modules.clear()",
    "gc": "gc.get_objects = lambda: 1 / 0\nleft_open = open('f', 'w')",
    "an unhelpful file": "import io\nclass F(io.RawIOBase):\n    def fileno(self): 1 / 0\nf = F()\ng = open('f', 'w')",
    "the lock": "next(o for o in gc.get_objects() if type(o) is module.Interpreter)._channel_lock.acquire()",
    "the namespace": "next(o for o in gc.get_objects() if type(o) is module.Interpreter)._namespace = 5",
    "a frame above": "sys._getframe(1).f_locals['out'].write('frame')\nsys._getframe(1).f_locals.clear()",
    "a trace": "sys.settrace(lambda *a: 1 / 0)\nsys.setprofile(lambda *a: 1 / 0)",
    "an audit hook": "def hook(*a): raise ValueError\nsys.addaudithook(hook)",
    "a gc callback": "gc.callbacks.append(lambda *a: 1 / 0)",
    "the recursion limit": "sys.setrecursionlimit(40)",
    "the traceback": "import traceback\ntraceback.format_exception_only = lambda *a: []\n1 / 0",
    "threads": "import threading\nthreading.enumerate = lambda: 1 / 0\nthreading.current_thread = None",
    "the fork": "module._fork = lambda: 1",
    "a fork that loops": "module._fork = lambda: [0 for _ in iter(int, 1)]",
    "descriptors": "os.dup2(1, 3)",
    "a folder": "os.mkdir('d')\nos.chdir('d')\nos.rmdir('../d')",
}


@pytest.mark.parametrize("patch", PATCHES.values(), ids=PATCHES)
def test_code_that_reaches_into_the_interpreter_harms_only_its_own_episode(pool, session, patch):
    with pool.open() as neighbour:
        neighbour.run("kept = 'other'")
        for code in (f"{INTERPRETER}{patch}", "print('next')\nfinal_answer_print('own')"):
            observation = session.run(code)  # raises nothing
            assert observation.answer in (None, "own")
            assert len(observation.text) < 400_000
        session.restore(1)
        assert session.run("print(kept)").text == "1"
        assert neighbour.run("print(kept)").text == "other"


@pytest.mark.parametrize(
    "answer",
    ["[1]", "5", "None", "{}", "{'pid': 1}", "{'pid': 2**70}", "{'pid': -1}", "{'pid': True}", "{'pid': 'x'}"],
)
def test_a_forged_answer_to_a_request_for_a_snapshot_costs_only_the_snapshot(pool, answer):
    with pool.open(reversible=True) as session, pool.open(reversible=True) as neighbour:
        session.run("kept = 1")
        neighbour.run("kept = 2")
        session.run(f"{INTERPRETER}module.Interpreter._snapshot = lambda s: (s._channels(1), module.write({answer}))")
        session.run("x = 1")
        session.restore(2)
        assert session.run("import os\nos._exit(1)").error == "died"
        session.restore(1)
        assert session.run("print(kept)").text == "1"
        assert neighbour.run("print(kept)").text == "2"


@pytest.mark.parametrize(
    "answers",
    ["[]", "[5]", "[[1]]", "[{'pids': 1}]", "[{'pids': [1, 1]}, {'done': True}]", "[{'pids': ['a', 2**70]}]"],
)
def test_a_forged_answer_to_a_request_for_branches_costs_only_the_snapshot(pool, answers):
    with pool.open(reversible=True) as session:
        session.run("kept = 1")
        code = f"{INTERPRETER}def forge(interpreter, folders):\n    interpreter._channels(2)\n"
        code += f"    for answer in {answers}: module.write(answer)\n    os._exit(0)\n"
        code += "module.Interpreter._branch = forge"
        session.run(code)
        branches = session.branch(2, 2)
        assert [branch.run("print(kept)").text for branch in branches] == ["1", "1"]
        for branch in branches:
            branch.close()
        assert session.run("print(kept)").text == "1"


@pytest.mark.parametrize("greeting", ["{'layers': []}", "{'layers': 5}", "5", "{'text': 'forged'}"])
def test_a_branch_that_greets_wrongly_is_made_again(pool, greeting):
    with pool.open(reversible=True) as session:
        code = f"{INTERPRETER}kept = 1\nreal = module.write\n"
        code += f"module.write = lambda frame: real({greeting} if 'layers' in frame else frame)"
        session.run(code)
        (branch,) = session.branch(1, 1)
        with branch:
            assert branch.run("print(kept)").text == "1"


def test_a_step_that_ends_the_interpreter_only_the_second_time_is_no_infrastructure_error(pool):
    """The state is lost, by the code's own doing, and says so in every later step."""
    with pool.open() as session:
        code = "import os, time\nif time.time() > {0}: os._exit(1)"
        session.run(code.format(time.time() + 2))
        time.sleep(2)
        assert session.run("os._exit(1)").error == "died"
        lost = session.run("print(1)")
        assert lost.error == "died"
        assert lost.text.startswith("Error: the variables are lost")


OBJECTS = {
    "__del__ raises": "class A:\n    def __del__(self): raise BaseException\nkeep = [A(), A()]\na = A()\ndel a",
    "__eq__ raises": "class A:\n    def __eq__(self, other): raise BaseException\n    __hash__ = None\nkeep = [A()]",
    "__class__ raises": "class A:\n    __class__ = property(lambda self: 1 / 0)\nkeep = A()\nf = open('f', 'w')",
    "__reduce__ raises": "class A:\n    def __reduce__(self): raise BaseException\nkeep = A()",
    "__getattribute__ loops": "class A:\n    def __getattribute__(self, n):\n        while True: pass\nkeep = A()",
    "a generator that goes on": "def g():\n    while True:\n        try: yield\n        except GeneratorExit: pass\n"
    "keep = g()\nnext(keep)",
    "things nobody can pickle": "import threading\nkeep = [threading.Lock(), lambda: 1, (i for i in 'x'), open]",
    "a cycle with __del__": "class A:\n    def __del__(self): keep.append(self)\nkeep = []\na = A()\na.a = a\ndel a",
}


@pytest.mark.parametrize("code", OBJECTS.values(), ids=OBJECTS)
def test_objects_that_nobody_can_copy_or_delete_are_no_matter(session, code):
    assert session.run(code).error is None
    session.run("x = 1")
    session.restore(2)
    assert session.run("print(kept, 'keep' in globals())").text == "1 True"


ENDS = {
    "__del__ loops": ("class A:\n    def __del__(self):\n        while True: pass\na = A()\ndel a", "timeout"),
    "__str__ loops": (
        "class E(BaseException):\n    def __str__(self):\n        while True: pass\nraise E",
        "timeout",
    ),
    "__str__ raises": ("class E(Exception):\n    def __str__(self): raise BaseException\nraise E", "exception"),
    "a metaclass raises": (
        "class M(type):\n    def __getattribute__(cls, name): raise BaseException\n"
        "class E(Exception, metaclass=M): pass\nraise E",
        "died",
    ),
    "deep recursion": ("def f(): f()\nf()", "exception"),
    "deep data": ("x = []\nfor _ in range(10**6): x = [x]\nprint(x)", "exception"),
}


@pytest.mark.parametrize(("code", "error"), ENDS.values(), ids=ENDS)
def test_an_end_as_odd_as_may_be_is_a_clear_observation(session, code, error):
    observation = session.run(code)
    assert observation.error == error
    assert observation.text
    assert session.run("print(kept)").text == "1"


INPUTS = {
    "null byte": ("x = 1\0", "exception", "SyntaxError: source code string cannot contain null bytes"),
    "lone surrogate": ("print(1)\udcff", "exception", "UnicodeEncodeError"),
    "byte order mark": ("\ufeffprint(1)", "exception", "SyntaxError: invalid non-printable character U+FEFF"),
    "no-break space": ("print(1)\u00a0", "exception", "SyntaxError: invalid non-printable character U+00A0"),
    "Windows newlines": ("x = 1\r\nif x:\r\n    print(x)\r\n", None, "1"),
    "old newlines": ("x = 1\rprint(x)", None, "1"),
    "tabs and spaces": ("if 1:\n\tx = 1\n        y = 1", "exception", "TabError"),
    "a wrong coding": ("# coding: nonsense\nprint('\u00e9')", None, "\u00e9"),
    "nothing": ("", None, ""),
    "a megabyte of text": ("x = '" + "a" * 10**6 + "'\nprint(len(x))", None, "1000000"),
    "parentheses": ("(" * 10**5, "exception", "SyntaxError: too many nested parentheses"),
    "a long sum": ("x = " + "+".join("1" * 10**5), "exception", "RecursionError"),
}


@pytest.mark.parametrize(("code", "error", "text"), INPUTS.values(), ids=INPUTS)
def test_any_text_as_code_is_a_clear_observation(session, code, error, text):
    observation = session.run(code)
    assert observation.text.startswith(text)
    assert observation.error == error
    assert session.run("print(kept)").text == "1"


def test_a_megabyte_of_statements_runs_or_times_out(session):
    assert session.run("x = 1\n" * 170_000).error in (None, "timeout")
    assert session.run("print(kept)").text == "1"


def test_nothing_is_left_over(pool):
    """The last test of this file: all that the code above did has ended with its session."""
    assert set(inside(pool._process.pid)) <= {1}
