"""Servers that a job starts: ready, dying, silent, stubborn, in each other's way; nothing is left behind."""

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from score.engine import watchdog
from score.engine.serve import Server, serve
from score.errors import InfrastructureError

GOOD = """
import http.server, os, socketserver, sys
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"version": "1.2"}' if self.path == "/version" else b"ok"
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
class Unix(socketserver.UnixStreamServer):
    def get_request(self): return self.socket.accept()[0], ("", 0)
"""
START = """
place = sys.argv[1]
server = http.server.HTTPServer(("127.0.0.1", int(place)), H) if place.isdigit() else Unix(place, H)
server.serve_forever()
"""
FORKS = "import subprocess; subprocess.Popen(['sleep', '300'])\n"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
TELL = "import os; print(os.getpid(), flush=True)\n"
NEVER = "import time; time.sleep(60)\n"
HANGS = (
    "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
    "print('still loading', flush=True); time.sleep(float(sys.argv[2])); raise SystemExit(7)\n"
)


def command(program: str, *more: str):
    return lambda place: [sys.executable, "-c", program, place, *more]


def group_members(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[2]) == pid and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def server_group(log: Path) -> int:
    return int(log.read_text().split()[0])


def gone(group: int, within_s: float = 10) -> bool:
    deadline = time.monotonic() + within_s
    while group_members(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    return group_members(group) == []


def get(server: Server, path: str = "/health") -> httpx.Response:
    with httpx.Client(transport=httpx.HTTPTransport(uds=server.socket)) as client:
        return client.get(server.url + path)


@pytest.mark.parametrize("extra", ["", FORKS, DEAF, FORKS + DEAF])
@pytest.mark.parametrize("unix", [False, True])
def test_a_server_answers_and_its_whole_group_ends_with_the_block(tmp_path, extra, unix):
    log = tmp_path / "server.log"
    program = TELL + extra + GOOD + START
    with serve(command(program), log, unix=unix, timeout_s=20, grace_s=1) as server:
        assert get(server).text == "ok"
        group = server_group(log)
        assert group_members(group)
    assert gone(group)


def test_the_provenance_has_the_command_and_the_version(tmp_path):
    with serve(command(GOOD + START), tmp_path / "l", unix=True, timeout_s=20) as server:
        assert server.facts == {"command": command(GOOD + START)("SOCKET"), "version": "1.2"}


def test_a_socket_is_this_users_alone_and_leaves_with_the_server(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("long" * 30)))
    (tmp_path / ("long" * 30)).mkdir()
    with serve(command(GOOD + START), tmp_path / "l", unix=True, timeout_s=20) as server:
        folder = Path(server.socket).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert len(server.socket) < 100
    assert not folder.exists()
    assert list((tmp_path / ("long" * 30)).iterdir()) == []


def test_the_environment_reaches_the_server(tmp_path):
    program = "import os; print(os.environ['WORD'])\n" + GOOD + START
    with serve(command(program), tmp_path / "l", environment={"WORD": "42"}, timeout_s=20):
        assert (tmp_path / "l").read_text().startswith("42")


def test_it_ends_with_an_exception_too(tmp_path):
    log = tmp_path / "server.log"
    with pytest.raises(ZeroDivisionError), serve(command(TELL + GOOD + START), log, timeout_s=20):
        _ = 1 / 0
    assert gone(server_group(log))


def test_a_server_that_dies_shows_its_own_last_lines(tmp_path):
    (tmp_path / "l").write_text("of an earlier server\n")
    program = "print('no such model'); raise SystemExit(3)"
    why = r"before it was ready.*code 3.*no such model"
    with pytest.raises(InfrastructureError, match=why) as error, serve(command(program), tmp_path / "l"):
        pass
    assert "earlier" not in str(error.value)


def test_the_first_error_is_shown_however_long_a_shutdown_goes_on(tmp_path):
    program = (
        "print('WARNING a low limit can cause OSError: too many open files'); print('RuntimeError: out of memory'); "
        "print('closing\\n' * 50); raise SystemExit(1)"
    )
    message = r"first error: RuntimeError: out of memory; last lines"
    with pytest.raises(InfrastructureError, match=message) as failed, serve(command(program), tmp_path / "l"):
        pass
    assert str(failed.value).count("closing") <= 8


def test_a_server_that_never_gets_ready_is_given_up_and_ended(tmp_path):
    log = tmp_path / "l"
    with (
        pytest.raises(InfrastructureError, match="not ready after 3 s"),
        serve(command(TELL + NEVER), log, timeout_s=3),
    ):
        pass
    assert gone(server_group(log))


def test_a_server_that_hangs_on_its_health_and_then_dies_is_noticed(tmp_path):
    with (
        pytest.raises(InfrastructureError, match=r"code 7.*still loading"),
        serve(command(HANGS, "1"), tmp_path / "l", timeout_s=60),
    ):
        pass


def test_a_server_that_hangs_on_its_health_is_given_up(tmp_path):
    with (
        pytest.raises(InfrastructureError, match=r"not ready after 3 s.*still loading"),
        serve(command(HANGS, "60"), tmp_path / "l", timeout_s=3),
    ):
        pass


def test_a_server_that_dies_in_the_middle_of_the_work_ends_the_block_with_an_error(tmp_path):
    log = tmp_path / "l"

    def work() -> None:
        with serve(command(TELL + GOOD + START), log, timeout_s=20) as server:
            assert server.death() is None
            os.kill(server_group(log), signal.SIGKILL)
            server.process.wait()
            assert "code -9" in server.death()

    with pytest.raises(InfrastructureError, match=r"ended with code -9; last lines.*start again"):
        work()


def test_a_server_whose_port_is_taken_starts_again_on_another(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = []

        def clashing(port: str) -> list[str]:
            ports.append(port)
            return command(GOOD + START)(str(taken.getsockname()[1]) if len(ports) == 1 else port)

        with serve(clashing, tmp_path / "l", timeout_s=20) as server:
            assert server.url.endswith(ports[1])
            assert get(server).text == "ok"
        assert "Address already in use" in (tmp_path / "l").read_text()


def test_it_is_not_started_again_forever(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with (
            pytest.raises(InfrastructureError, match="Address already in use"),
            serve(lambda _: command(GOOD + START)(port), tmp_path / "l", timeout_s=20),
        ):
            pass


def test_a_port_of_ones_choice_that_is_taken_is_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(InfrastructureError, match=rf"127\.0\.0\.1, port {port}: Address already in use"),
            serve(lambda port: pytest.fail("nothing is started"), tmp_path / "log", address=("127.0.0.1", port)),
        ):
            pytest.fail("nothing is served")


def test_a_port_is_held_until_the_server_has_it(tmp_path):
    def command_of_a_rival(port: str) -> list[str]:
        with contextlib.closing(socket.socket()) as rival, pytest.raises(OSError, match="in use"):
            rival.bind(("127.0.0.1", int(port)))
        return command(GOOD + START)(port)

    with serve(command_of_a_rival, tmp_path / "l", timeout_s=20) as server:
        assert get(server).text == "ok"


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
