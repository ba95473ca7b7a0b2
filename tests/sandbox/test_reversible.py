"""Going back: to the state before a step, exactly, and to several copies of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.sandbox.processes import inside

from score.sandbox import scratch
from score.sandbox.base import Limits
from score.sandbox.zygote import ZygotePool

LIMITS = Limits(timeout_s=2.0, memory_mb=1024, output_chars=400, file_mb=16)

START = """import random, os, math
import numpy
x, items, calls = 0, [], 0
def count():
    global calls
    calls += 1
    return calls
def numbers():
    n = 0
    while True:
        n += 1
        yield n
stream = numbers()
"""
STEPS = (
    "x += {n}\nprint(x)",
    "items.append({n})\nprint(items)",
    "items = [i * {n} for i in items][-5:]",
    "print(count(), next(stream))",
    "for _ in range({n}): next(stream)",
    "print(random.random(), numpy.random.rand())",
    "random.seed({n})\nnumpy.random.seed({n})",
    "with open('f{n}', 'a') as file: print(file.write(str(x)))",
    "for name in sorted(os.listdir()):\n    if os.path.isfile(name): print(name, open(name).read())",
    "os.makedirs('d/{n}', exist_ok=True)\nprint(sorted(os.listdir('d')))",
    "if os.path.exists('f{n}'): os.remove('f{n}')",
    "if not os.path.lexists('l'): os.symlink('f{n}', 'l')\nprint(os.readlink('l'))",
    "import fractions\nitems.append(fractions.Fraction(1, {n} + 1))\nprint(items[-1])",
    "def count(): return {n}",
    "math.tau = {n}\nprint(math.tau)",
    "print(web_search('q{n}'))",
    "print(x, items, calls)\nundefined",
    "left_open = open('f{n}', 'a')",
)
PROGRAMS = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 3)), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def pool():
    with ZygotePool(LIMITS) as pool:
        with pool.open(reversible=True) as session:
            if not session._process.gated:
                pytest.skip("this kernel lets no parent decide about forks")
        yield pool


@pytest.fixture
def session(pool):
    with pool.open(reversible=True) as session:
        yield session


def seen(observation) -> tuple:
    return observation.text, observation.error, observation.answer, observation.calls


def tools() -> dict:
    asked = []
    return {"web_search": lambda query: asked.append(query) or f"{query}: {len(asked)}"}


@pytest.mark.parametrize("gated", [True, False])
@given(program=PROGRAMS, data=st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_detours_leave_no_trace(pool, gated, program, data):
    """A program prints the same, run straight and run with detours, restores and branches, with and without forks."""
    steps = [START, *(step.format(n=n) for step, n in program)]
    steps = [step for step in steps if gated or "web_search" not in step]  # its counter goes on in detours
    with pool.open(tools()) as straight:
        expected = [seen(straight.run(step)) for step in steps]
    session = pool.open({"web_search": tools()["web_search"]}, reversible=True)
    session._process.gated = gated
    for i, step in enumerate(steps):
        if "web_search" not in "".join(steps):
            for detour, n in data.draw(PROGRAMS | st.just([]), label=f"before step {i}"):
                session.run(detour.format(n=n))
            if data.draw(st.booleans()):
                session.restore(data.draw(st.integers(0, i)))
                for again in steps[session.steps : i]:
                    session.run(again)
            session.restore(i)
            if data.draw(st.booleans()):
                (branch,) = session.branch(i, 1)
                session.close()
                session = branch
        assert seen(session.run(step)) == expected[i]
    session.close()


def test_what_cannot_be_made_twice_is_kept(session):
    """A replay would print another number: this is the state itself."""
    session.run("import os\nsecret = os.urandom(16).hex()\ndef hold():\n    yield secret\nheld = hold()")
    secret = session.run("print(secret)").text
    session.run("del secret")
    session.restore(1)
    assert session.run("print(secret)").text == secret
    session.restore(1)
    assert session.run("print(next(held))").text == secret
    assert [branch.run("print(secret)").text for branch in session.branch(1, 3)] == [secret] * 3


@pytest.mark.parametrize("end", ["while True: pass", "import os\nos._exit(0)", "import os\nos.closerange(3, 64)"])
def test_a_step_that_ends_the_interpreter_costs_nothing(session, end):
    session.run("import os\nsecret = os.urandom(16).hex()\nopen('f', 'w').write(secret)")
    secret = session.run("print(secret)").text
    assert session.run(f"secret = None\nopen('f', 'w').write('')\n{end}").error in ("timeout", "died")
    assert session.steps == 2
    assert session.run("print(secret, open('f').read())").text == f"{secret} {secret}"


def test_branches_are_independent_and_outlive_their_origin(pool):
    with pool.open(reversible=True) as session:
        session.run("x = []\nopen('f', 'w').write('0')")
        branches = session.branch(1, 4)
        session.run("x.append('origin')\nopen('f', 'w').write('origin')")
        for i, branch in enumerate(branches):
            branch.run(f"x.append({i})\nopen('f', 'a').write('{i}')")
        assert session.run("print(x, open('f').read())").text == "['origin'] origin"
    assert [b.run("print(x, open('f').read())").text for b in branches] == [f"[{i}] 0{i}" for i in range(4)]
    branches[0].restore(1)
    assert branches[0].run("print(x, open('f').read())").text == "[] 0"
    (twig,) = branches[1].branch(2, 1)
    branches[1].close()
    assert twig.run("print(x, open('f').read())").text == "[1] 01"


def test_a_stored_path_leads_nowhere_in_a_branch(pool, session):
    if "files" not in pool.layers:
        pytest.skip("this kernel does not offer Landlock")
    session.run("import os\npath = os.path.abspath('f')\nopen(path, 'w').write('origin')")
    (branch,) = session.branch(1, 1)
    assert "PermissionError" in branch.run("open(path, 'w')").text
    assert "PermissionError" in branch.run("os.listdir('../..')").text
    assert branch.run("print(open('f').read())").text == "origin"


def test_a_file_left_open_is_closed_with_a_notice_in_every_kind_of_session(pool, session):
    notice = "hello\nNotice: closed, as it was left open at the end of the step: data"
    for box in (session, pool.open()):
        assert box.run("f = open('data', 'w')\nf.write('kept')\nprint('hello')").text == notice
        assert box.run("print(open('data').read())").text == "kept"
        assert "ValueError: I/O operation on closed file" in box.run("f.write('more')").text
        assert "1 descriptor" in box.run("import os\nraw = os.open('data', 0)").text
        assert box.run("print(open('data').read())").text == "kept"


def test_no_memory_is_shared_between_a_state_and_its_successor(session):
    assert "PermissionError" in session.run("import mmap\nshared = mmap.mmap(-1, 4096)").text
    session.run("open('f', 'wb').write(bytes(4096))")
    assert "PermissionError" in session.run("import numpy\nnumpy.memmap('f', mode='r+')").text


def test_forks_pass_only_when_the_host_asks(pool, session):
    for step in range(3):
        assert "PermissionError" in session.run("import os\nwhile True: os.fork()").text
        assert session.steps == step + 1
    assert "PermissionError" in session.branch(1, 1)[0].run("import os\nos.fork()").text


def test_a_thread_that_steals_the_fork_of_a_snapshot_gains_nothing(pool, session):
    before = len(inside(pool._process.pid))
    session.run(
        "import os, threading, time\nx = 1\ndef steal():\n    while True:\n        try: os.fork()\n"
        "        except OSError: time.sleep(0.0005)\nthreading.Thread(target=steal, daemon=True).start()"
    )
    for i in range(20):
        assert session.run("x += 1\nprint(x)").text == str(i + 2)
    session.restore(5)
    assert session.run("print(x)").text == "5"
    session.close()
    assert len(inside(pool._process.pid)) == before - 1


def test_a_folder_too_full_to_keep_is_made_again(session):
    session.run("import os\nsecret = os.urandom(4)\nx = 1")
    session.run("for i in range(5): open(f'f{i}', 'wb').write(bytes(15 << 20))")
    session.run("x = 2\nfor i in range(5): os.remove(f'f{i}')")
    session.run("print(len(os.listdir()))")
    session.restore(2)
    assert session.run("print(x, len(os.listdir()))").text == "1 5"


@pytest.mark.parametrize("step", [-1, 2])
def test_only_states_that_were_can_be_returned_to(session, step):
    session.run("x = 1")
    with pytest.raises(ValueError, match=f"step {step} of a session that completed 1"):
        session.restore(step)
    with pytest.raises(ValueError, match="that completed 1"):
        session.branch(step, 1)


def test_nothing_is_left_of_closed_sessions(pool):
    scratch = Path(pool._scratch)
    before, files, folders = set(inside(pool._process.pid)), len(os.listdir("/proc/self/fd")), set(scratch.iterdir())
    session = pool.open(reversible=True)
    for i in range(5):
        session.run(f"x = {i}\nopen('f{i}', 'w').close()")
    branches = session.branch(3, 20)
    for branch in branches:
        branch.run("y = 1")
    session.run("while True: pass")
    assert len(set(inside(pool._process.pid)) - before) > 40
    for one in (session, *branches):
        one.close()
    assert set(inside(pool._process.pid)) == before
    assert len(os.listdir("/proc/self/fd")) == files
    assert set(scratch.iterdir()) == folders


def test_a_branch_that_ends_leaves_the_others_out_of_reach(pool, session):
    if "files" not in pool.layers:
        pytest.skip("this kernel does not offer Landlock")
    session.run("import os")
    first, second = session.branch(1, 2)
    second.run("open('own', 'w').write('mine')")
    first.close()
    assert "PermissionError" in session.run("os.listdir('..')").text
    assert "PermissionError" in session.run("os.mkdir('../intruder')").text
    assert second.run("print(open('own').read())").text == "mine"


def test_what_is_put_back_follows_no_link_that_a_process_makes_meanwhile(tmp_path, monkeypatch):
    folder, outside = tmp_path / "work", tmp_path / "outside"
    (folder / "d").mkdir(parents=True)
    (folder / "d/f").write_text("content")
    outside.mkdir()
    entries = scratch.keep(str(folder))
    make = scratch._make

    def swapping(entry, name, handle):
        make(entry, name, handle)
        if name == "d":
            os.rmdir(name, dir_fd=handle)
            os.symlink(outside, name, dir_fd=handle)

    monkeypatch.setattr(scratch, "_make", swapping)
    with pytest.raises(OSError, match="Not a directory"):
        scratch.put_back(str(folder), entries)
    assert list(outside.iterdir()) == []


def test_a_folder_that_cannot_be_put_back_is_made_by_running_again(session, monkeypatch):
    session.run("x = 1\nopen('f', 'w').write('a')")
    session.run("x = 2\nopen('f', 'w').write('b')")

    def full(folder, entries):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scratch, "put_back", full)
    session.restore(1)
    assert session.run("print(x, open('f').read())").text == "1 a"
    assert [branch.run("print(x)").text for branch in session.branch(1, 2)] == ["1", "1"]
