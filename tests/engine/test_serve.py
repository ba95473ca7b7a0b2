"""Servers that a job starts: ready, dying, silent, stubborn; nothing is left behind."""

import os
import sys
import time
from pathlib import Path

import httpx
import pytest

from score.engine.serve import serve
from score.errors import InfrastructureError

GOOD = """
import http.server, sys
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *a): pass
"""
START = "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()"
FORKS = "import subprocess; subprocess.Popen(['sleep', '300'])\n"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"


def command(program: str):
    return lambda port: [sys.executable, "-c", program, str(port)]


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


TELL = "import os; print(os.getpid(), flush=True)\n"


@pytest.mark.parametrize("extra", ["", FORKS, DEAF])
def test_a_server_answers_and_its_whole_group_ends_with_the_block(tmp_path, extra):
    log = tmp_path / "server.log"
    with serve(command(TELL + extra + GOOD + START), log, timeout_s=20, grace_s=1) as url:
        assert httpx.get(f"{url}/health").text == "ok"
        group = server_group(log)
    time.sleep(0.1)
    assert group_members(group) == []


def test_it_ends_with_an_exception_too(tmp_path):
    log = tmp_path / "server.log"
    with pytest.raises(ZeroDivisionError), serve(command(TELL + GOOD + START), log, timeout_s=20):
        _ = 1 / 0
    assert group_members(server_group(log)) == []


def test_a_server_that_dies_shows_its_last_lines(tmp_path):
    program = "print('no such model'); raise SystemExit(3)"
    with pytest.raises(InfrastructureError, match=r"code 3.*no such model"), serve(command(program), tmp_path / "l"):
        pass


def test_a_server_that_never_gets_ready_is_given_up_and_ended(tmp_path):
    log = tmp_path / "l"
    with (
        pytest.raises(InfrastructureError, match="not ready after 1 s"),
        serve(command(TELL + "import time; time.sleep(60)"), log, timeout_s=1),
    ):
        pass
    assert group_members(server_group(log)) == []


def test_kill_9_of_the_job_takes_the_server_along(tmp_path):
    log = tmp_path / "server.log"
    program = (
        "import sys, time; from pathlib import Path; from score.engine.serve import serve\n"
        f"with serve(lambda port: [sys.executable, '-c', {TELL + GOOD + START!r}, str(port)], Path({str(log)!r})):\n"
        "    print('ready', flush=True); time.sleep(60)\n"
    )
    import subprocess

    job = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env={**os.environ})
    assert job.stdout.readline() == b"ready\n"
    job.kill()
    job.wait()
    deadline = time.monotonic() + 5
    while group_members(server_group(log)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert group_members(server_group(log)) == []
