"""What a step uses up is bounded, it says so to the model, and the session goes on."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.sandbox.processes import inside, pid_of

from score.sandbox import scratch, watch, zygote
from score.sandbox.base import Limits
from score.sandbox.zygote import ZygotePool

LIMITS = Limits(timeout_s=10.0, memory_mb=1024, output_chars=1000, file_mb=4)


@pytest.fixture(scope="module")
def pool():
    with ZygotePool(LIMITS) as pool:
        yield pool


@pytest.fixture(params=[False, True], ids=["plain", "reversible"])
def session(request, pool):
    with pool.open(reversible=request.param) as session:
        session.run("kept = 1")
        yield session


MANY_FILES = "import os\nfor i in range({0}): open(f'f{{i}}', 'w').close()"


def test_a_memory_bomb_is_a_memory_error(session):
    assert session.run("b = bytearray(8 << 30)").text == "MemoryError"
    assert session.run("parts = []\nwhile True: parts.append(bytearray(1 << 26))").text == "MemoryError"
    assert session.run("parts = None\nprint(kept)").text == "1"


def test_a_hundred_megabytes_of_output_are_cut(session):
    observation = session.run("for _ in range(100): print('x' * 10**6)")
    assert observation.error is None
    assert len(observation.text) < LIMITS.output_chars + 100
    assert f"[{100 * (10**6 + 1) - LIMITS.output_chars} characters left out]" in observation.text
    assert session.run("print(kept)").text == "1"


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "while True: print('x' * 10**6)",
        "while True:\n    try:\n        while True: 1/0\n    except BaseException: pass",
        "import signal\nfor s in (1, 2, 3, 14, 15, 24): signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
        "import time\ntime.sleep(60)",
        "import re\nre.match('(a+)+$', 'a' * 40 + 'b')",
        "x = 7 ** 7 ** 9",
        "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
    ],
)
def test_an_endless_step_is_stopped(session, monkeypatch, code):
    monkeypatch.setattr(session._pool, "limits", replace(LIMITS, timeout_s=1.0))
    observation = session.run(code)
    assert observation.text == "TimeoutError: the code ran longer than 1 s and was stopped."
    assert observation.error == "timeout"
    monkeypatch.undo()
    assert session.run("print(kept)").text == "1"


def test_a_big_file_is_an_error_of_the_code(session):
    assert "OSError" in session.run("with open('big', 'wb') as f:\n    while True: f.write(b'x' * 2**20)").text
    assert session.run("print(kept)").text == "1"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (MANY_FILES.format(scratch.MOST_ENTRIES + 1), "more than 1000 files and folders"),
        ("import os\nfor i in range(100): os.makedirs(f'a{i}/' + '/'.join('b' * 12))", "more than 1000 files"),
        ("import os\nfor i in range(200): os.mkdir('d'), os.chdir('d')", "folders nested more than 16 deep"),
        ("import os\nos.mkdir('blind', 0o300)", "a folder that its owner may not read"),
    ],
)
def test_a_folder_that_holds_too_much_undoes_the_step(session, code, reason):
    observation = session.run(f"lost = 1\n{code}")
    assert observation.error == "died"
    assert observation.text.startswith(f"Error: the code made {reason}")
    assert observation.text.endswith("in the working folder and was stopped.")
    assert session.run("import os\nprint(kept, 'lost' in globals(), os.listdir())").text == "1 False []"


def test_many_files_of_allowed_size_are_too_much_together(session, monkeypatch):
    monkeypatch.setattr(scratch, "MOST_BYTES", 10 << 20)
    observation = session.run("for i in range(4): open(str(i), 'wb').write(bytes(4 << 20))")
    assert observation.text == "Error: the code made more than 10 MiB of files in the working folder and was stopped."


def test_a_bomb_of_files_is_stopped_while_it_runs(session):
    """Long before the step's end, which would leave some hundred thousand files."""
    observation = session.run("import itertools\nfor i in itertools.count(): open(f'f{i}', 'w').close()")
    reason = "more than 1000 files and folders in the working folder"
    assert observation.text == f"Error: the code made {reason} and was stopped."
    assert session.run("print(kept)").text == "1"


def test_as_many_files_as_may_be_are_no_matter(session, monkeypatch):
    monkeypatch.setattr(scratch, "MOST_ENTRIES", 50)
    assert session.run(MANY_FILES.format(scratch.MOST_ENTRIES)).error is None
    assert session.run("print(kept, len(os.listdir()))").text == f"1 {scratch.MOST_ENTRIES}"


def test_sparse_files_count_for_what_they_hold(session):
    code = "import os\nfor i in range(100):\n    with open(str(i), 'wb') as f: f.truncate(4 << 20)"
    assert session.run(code).error is None


@pytest.mark.parametrize("depth", [10, 1200])
def test_a_folder_can_be_cleared_however_deep_and_unreadable_it_is(tmp_path, depth):
    handle = os.open(tmp_path, os.O_RDONLY)
    for level in range(depth):
        os.mkdir("below", dir_fd=handle)
        os.close(os.open(f"file{level}", os.O_CREAT | os.O_WRONLY, dir_fd=handle))
        below = os.open("below", os.O_RDONLY, dir_fd=handle)
        if level % 2:
            os.fchmod(handle, 0)
        os.close(handle)
        handle = below
    os.close(handle)
    tmp_path.chmod(0o700)
    (tmp_path / "link").symlink_to(Path(__file__).parent)
    scratch.clear(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert Path(__file__).exists()


def test_a_thread_bomb_is_stopped(session):
    code = "import threading, time\nthreading.stack_size(32768)\n"
    code += "while True: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    observation = session.run(code)
    assert observation.text == f"Error: the code made more than {watch.MOST_THREADS} threads and was stopped."
    assert session.run("print(kept)").text == "1"


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_busy_thread_left_behind_rests_between_the_steps(session):
    session.run("import threading\nn = 0\ndef count():\n    global n\n    while True: n += 1")
    session.run("threading.Thread(target=count, daemon=True).start()")
    pid = pid_of(session)
    time.sleep(0.1)
    used = cpu_s(pid)
    time.sleep(0.5)
    assert cpu_s(pid) == used
    before = int(session.run("print(n)").text)
    assert int(session.run("import time\ntime.sleep(0.1)\nprint(n)").text) > before  # it goes on with the session


def test_a_resting_session_ends_when_it_is_closed(pool):
    processes = set(inside(pool._process.pid))
    for reversible in (False, True):
        with pool.open(reversible=reversible) as session:
            session.run("import threading\nthreading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()")
    assert set(inside(pool._process.pid)) == processes


def test_a_resting_session_can_be_restored_and_branched(pool):
    with pool.open(reversible=True) as session:
        session.run("import threading\nx = 1")
        session.run("threading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()\nx = 2")
        assert [branch.run("print(x)").text for branch in session.branch(2, 2)] == ["2", "2"]
        assert session._process.paused
        session.restore(1)
        assert session.run("print(x)").text == "1"


def test_threads_that_wait_are_there_in_the_next_step(session):
    session.run("from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(2)\npool.submit(int)")
    assert session.run("print(pool.submit(sum, [1, 2]).result())").text == "3"


def test_using_up_the_cpu_time_of_a_session_is_its_own_end(monkeypatch):
    """A thief of CPU time that no pause reaches, such as a snapshot that does not sleep, ends so at the latest."""
    monkeypatch.setattr(zygote, "_CPU_STEPS", 0.1)
    monkeypatch.setattr(zygote, "_LEAST_CPU_S", 1)
    with ZygotePool(Limits(timeout_s=20.0)) as pool, pool.open() as session:
        burn = "import time\nend = time.process_time() + 1.2\nwhile time.process_time() < end: pass"
        observations = [session.run(burn) for _ in range(3)]
        assert [observation.error for observation in observations] == [None, "died", "died"]
        assert observations[1].text.startswith("Error: the code ended the interpreter")
