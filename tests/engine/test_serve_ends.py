"""However a job ends, its servers end with it and nothing is left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from servers import DEAF, FORKS, GOOD, NEVER, START, TELL, command, gone, group_members, server_group

from score.engine import watchdog
from score.engine.serve import serve

JOB = """
import sys, time
from pathlib import Path
from score import cli
from score.engine.serve import serve

def main(argv=None):
    program, log = sys.argv[1:3]
    with serve(lambda port: [sys.executable, "-c", program, port], Path(log), timeout_s=60, grace_s=1):
        print("ready", flush=True)
        time.sleep(60)

{run}
"""
RUNS = {"under the command line": "cli.run(main)", "by itself": "main()"}


def start_job(run: str, program: str, log: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", JOB.format(run=run), program, str(log)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_for(log: Path) -> None:
    deadline = time.monotonic() + 20
    while not (log.exists() and log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("phase", ["starting", "running"])
def test_a_signal_to_the_job_ends_the_server_and_all_that_it_started(tmp_path, run, sign, phase):
    log = tmp_path / "server.log"
    program = TELL + FORKS + DEAF + (NEVER if phase == "starting" else GOOD + START)
    job = start_job(run, program, log)
    if phase == "running":
        assert job.stdout.readline() == b"ready\n"
    wait_for(log)
    job.send_signal(sign)
    job.communicate(timeout=30)
    assert job.returncode != 0
    assert gone(server_group(log))


LOSES = """
import os, score.engine.serve, weakref
class Kept: pass
def lose_a_signal(server, *_, **_more):
    while not server.said(): time.sleep(0.02)
    kept = Kept()
    seen = weakref.ref(kept, lambda _: os.kill(os.getpid(), {sign:d}))
    del kept
    time.sleep(60)
score.engine.serve._await_health = lose_a_signal
"""


@pytest.mark.parametrize(
    ("run", "sign", "code"),
    [
        ("cli.run(main)", signal.SIGTERM, 143),
        ("cli.run(main)", signal.SIGINT, 130),
        ("main()", signal.SIGTERM, 143),
        ("main()", signal.SIGINT, -signal.SIGINT),
    ],
)
def test_a_signal_in_the_callback_of_a_weak_reference_ends_the_server_too(tmp_path, run, sign, code):
    log = tmp_path / "server.log"
    job = start_job(LOSES.format(sign=sign) + run, TELL + GOOD + START, log)
    job.communicate(timeout=30)
    assert job.returncode == code
    assert gone(server_group(log))


def test_an_impatient_second_signal_leaves_nothing_behind(tmp_path):
    log = tmp_path / "server.log"
    job = start_job("cli.run(main)", TELL + FORKS + DEAF + GOOD + START, log)
    assert job.stdout.readline() == b"ready\n"
    for _ in range(3):
        job.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    job.communicate(timeout=30)
    assert gone(server_group(log))


INTERRUPTED = """
import score.engine.serve
def second_signal(*_): raise SystemExit(143)
score.engine.serve._end = second_signal
"""


def test_a_second_signal_before_the_end_of_the_server_has_begun_leaves_that_to_the_watchdog(tmp_path):
    log = tmp_path / "server.log"
    job = start_job(INTERRUPTED + "cli.run(main)", TELL + FORKS + DEAF + GOOD + START, log)
    assert job.stdout.readline() == b"ready\n"
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=30)
    assert job.returncode == 143
    assert gone(server_group(log))


@pytest.mark.parametrize("extra", ["", FORKS, DEAF, FORKS + DEAF], ids=["plain", "forks", "deaf", "forks and deaf"])
@pytest.mark.parametrize("phase", ["starting", "running"])
def test_kill_9_of_the_job_takes_the_server_along_and_all_that_it_started(tmp_path, extra, phase):
    log = tmp_path / "server.log"
    job = start_job("main()", TELL + extra + (NEVER if phase == "starting" else GOOD + START), log)
    if phase == "running":
        assert job.stdout.readline() == b"ready\n"
    wait_for(log)
    group = server_group(log)
    assert group_members(group)
    job.kill()
    job.communicate()
    assert gone(group)


def children() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rsplit(")", 1)[1].split()[1]) == os.getpid():
                found.append((path.parent / "cmdline").read_text())
    return found


def test_the_watchdog_leaves_with_the_server(tmp_path):
    with serve(command(GOOD + START), tmp_path / "l", timeout_s=20):
        assert any("watchdog.py" in words for words in children())
    assert not any("watchdog.py" in words for words in children())


def test_a_watchdog_without_a_group_to_watch_ends_by_itself():
    """Its number may be another's later."""
    ended = subprocess.Popen(["true"], start_new_session=True)
    ended.wait()
    words = [sys.executable, "-IS", watchdog.__file__, str(os.getpid()), "1"]
    assert subprocess.run(words, input=f"{ended.pid}\n".encode(), timeout=20).returncode == 0


def test_a_watchdog_that_is_told_of_no_server_ends_by_itself():
    words = [sys.executable, "-IS", watchdog.__file__, str(os.getpid()), "1"]
    assert subprocess.run(words, stdin=subprocess.DEVNULL, timeout=20).returncode == 0


@pytest.mark.parametrize(("problem", "error"), [("nothing", FileNotFoundError), (None, TypeError)])
def test_a_server_that_cannot_be_started_leaves_no_watchdog(tmp_path, problem, error):
    before = len(children())
    with pytest.raises(error), serve(lambda port: [problem], tmp_path / "l"):
        pass
    assert len(children()) == before, "ended ones that nobody has asked for are among them"


KILLED = """
import os, signal, subprocess, sys, time
import score.engine.serve
start = subprocess.Popen
def killed_in_between(words, *rest, **options):
    process = start(words, *rest, **options)
    if "preexec_fn" in options:
        while not os.path.getsize(sys.argv[2]): time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGKILL)
    return process
subprocess.Popen = killed_in_between
"""


def test_a_job_that_is_killed_while_it_starts_a_server_takes_it_along(tmp_path):
    log = tmp_path / "server.log"
    job = start_job(KILLED + "main()", FORKS + DEAF + TELL + NEVER, log)
    job.communicate(timeout=30)
    assert job.returncode == -signal.SIGKILL
    assert gone(server_group(log))
