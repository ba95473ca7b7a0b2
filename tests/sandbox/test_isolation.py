"""What model-written code cannot do: one property, one attempt to break it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.sandbox.processes import alive, attempts, eventually, inside, needs, pid_of

from score.errors import InfrastructureError
from score.sandbox import isolate
from score.sandbox.base import Limits
from score.sandbox.zygote import ZygotePool

LIMITS = Limits(timeout_s=3.0, memory_mb=1024, output_chars=1000, file_mb=4)
SECRET = "do-not-tell-4711"


@pytest.fixture(scope="module")
def pool():
    os.environ["SCORE_TEST_SECRET"] = SECRET
    try:
        with ZygotePool(LIMITS) as pool:
            yield pool
    finally:
        del os.environ["SCORE_TEST_SECRET"]


@pytest.fixture(params=[False, True], ids=["plain", "reversible"])
def session(request, pool):
    with pool.open(reversible=request.param) as session:
        yield session


def test_there_is_no_network(pool, session):
    needs(pool, "no_network")
    said = attempts(
        session,
        "socket.socket()",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
        "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
        "socket.socket(socket.AF_UNIX)",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "socket.socketpair()",
        "socket.create_connection(('127.0.0.1', 80), 1)",
    )
    assert said.splitlines() == ["PermissionError"] * 7
    names = attempts(session, "socket.getaddrinfo('localhost', 80)", "socket.gethostbyname('example.org')")
    assert names.splitlines() == ["gaierror"] * 2


def test_no_other_program_runs(pool, session):
    needs(pool, "no_exec")
    said = attempts(
        session,
        "os.execv('/bin/true', ['true'])",
        "subprocess.run(['true'])",
        "os.posix_spawn('/bin/true', ['true'], {})",
    )
    assert said.splitlines() == ["PermissionError"] * 3
    assert session.run("import os\nprint(os.system('true') != 0)").text == "True"


def test_raw_system_calls_gain_nothing(pool, session):
    """Not through libc.syscall, not by the x32 twins of the calls, which have their own numbers."""
    needs(pool, "no_exec")
    if os.uname().machine != "x86_64":
        pytest.skip("the numbers are those of x86_64")
    x32 = 0x40000000
    calls = {
        "socket": "41, 2, 1, 0",
        "x32 socket": f"{x32 + 41}, 2, 1, 0",
        "execve": "59, path, None, None",
        "x32 execve": f"{x32 + 520}, path, None, None",
        "fork": "57",
        "vfork": "58",
        "clone": "56, 17, 0, 0, 0, 0",
        "io_uring_setup": "425, 8, buffer",
        "ptrace": "101, 0, 0, 0, 0",
        "seccomp": "317, 1, 0, buffer",
        "pidfd_open": "434, 1, 0",
        "unshare": "272, 0x10000000",
        "timer_create": "222, 0, None, buffer",
    }
    code = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\npath = ctypes.c_char_p(b'/bin/true')\n"
    code += "buffer = ctypes.create_string_buffer(256)\n"
    code += "".join(f"print(libc.syscall({arguments}), ctypes.get_errno())\n" for arguments in calls.values())
    assert session.run(code).text.splitlines() == ["-1 1"] * len(calls)
    clone3 = "print(libc.syscall(435, buffer, 88), ctypes.get_errno())"
    assert session.run(clone3).text == f"-1 {errno.ENOSYS}"


def test_a_fork_bomb_ends_at_its_first_fork_and_threads_work(pool, session):
    needs(pool, "no_fork")
    assert "PermissionError" in session.run("import os\nwhile True: os.fork()").text
    assert "PermissionError" in session.run("import multiprocessing as m\nm.Process(target=print).start()").text
    code = "import threading\nt = threading.Thread(target=print, args=('thread',)); t.start(); t.join()"
    assert session.run(code).text == "thread"


def test_other_processes_are_out_of_reach(pool, session):
    needs(pool, "no_interference")
    said = attempts(
        session,
        f"os.kill({os.getpid()}, 0)",
        "os.kill(os.getppid(), signal.SIGKILL)",
        "os.killpg(0, signal.SIGKILL)",
        f"os.setpriority(os.PRIO_PROCESS, {os.getpid()}, 19)",
        f"os.sched_setaffinity({os.getpid()}, {{0}})",
        "os.setsid()",
    )
    assert said.splitlines() == ["PermissionError"] * 6
    calls = "libc.ptrace(16, {0}, 0, 0), libc.prlimit({0}, 7, None, None), libc.prctl(1, 0)"
    code = f"import ctypes\nlibc = ctypes.CDLL(None)\nprint({calls}, libc.prlimit(0, 7, None, None))"
    assert session.run(code.replace("{0}", str(os.getpid()))).text == "-1 -1 -1 0"


def test_the_kernel_signals_nobody_on_the_codes_behalf(pool, session):
    """Not as the owner of a descriptor that becomes ready, not by a timer."""
    needs(pool, "no_interference")
    with pool.open() as victim:
        victim.run("alive = True")
        said = attempts(
            session,
            f"fcntl.fcntl(3, fcntl.F_SETOWN, {victim._process.channel.pid})",
            "fcntl.fcntl(3, 10, signal.SIGKILL)",
            f"fcntl.ioctl(3, 0x8901, struct.pack('i', {victim._process.channel.pid}))",
            "resource.setrlimit(resource.RLIMIT_CPU, (1, 1))",
        )
        assert said.splitlines() == ["PermissionError"] * 3 + ["ValueError"]
        assert victim.run("print(alive)").text == "True"


def test_only_the_scratch_folder_can_be_written(pool, session, tmp_path):
    needs(pool, "files")
    victim = tmp_path / "victim"
    victim.write_text("intact")
    said = attempts(
        session,
        f"open({str(victim)!r}, 'w')",
        f"os.truncate({str(victim)!r}, 0)",
        f"os.remove({str(victim)!r})",
        f"os.chmod({str(victim)!r}, 0)",
        f"os.utime({str(victim)!r})",
        f"os.mkdir({str(tmp_path / 'new')!r})",
        "open('/dev/shm/score', 'w')",
        "open('../escape', 'w')",
    )
    assert set(said.splitlines()) == {"PermissionError"}
    assert victim.read_text() == "intact"
    assert session.run("open('own', 'w').write('mine')\nprint(open('own').read())").text == "mine"


def test_files_outside_cannot_be_read(pool, session):
    needs(pool, "files")
    said = attempts(session, "open('/etc/passwd')", f"open({__file__!r})", "os.listdir('/')", "os.listdir('..')")
    assert said.splitlines() == ["PermissionError"] * 4


def test_gold_answers_and_the_repository_cannot_be_read_by_any_detour(pool, session, tmp_path):
    needs(pool, "files")
    gold = tmp_path / "gold.jsonl"
    gold.write_text("the answer is 42")
    said = attempts(
        session,
        f"open({str(gold)!r}).read()",
        f"[os.symlink({str(gold)!r}, 'link'), open('link').read()]",
        f"[os.link({str(gold)!r}, 'hard'), open('hard').read()]",
        f"[os.rename({str(gold)!r}, 'moved'), open('moved').read()]",
        f"[os.chdir({str(tmp_path)!r}), open('gold.jsonl').read()]",
        f"open('/proc/{os.getpid()}/root{gold}').read()",
        f"os.listdir({str(tmp_path)!r})",
        f"os.listdir({str(Path(__file__).parents[2])!r})",
        "os.listdir(os.path.expanduser('~root'))",
        f"open('/proc/{os.getpid()}/maps').read()",
        f"open('/proc/{os.getpid()}/mem', 'rb').read()",
        f"os.listdir('/proc/{os.getpid()}/fd')",
    )
    refusals = {"PermissionError", "OSError"}  # a hard link across file systems is an OSError before it is a refusal
    assert set(said.splitlines()) <= refusals
    assert gold.read_text() == "the answer is 42"


def test_secrets_of_the_environment_are_invisible(pool, session):
    needs(pool, "files")
    assert SECRET not in session.run("import os\nprint(dict(os.environ))").text
    paths = [f"/proc/{name}/environ" for name in ("1", "self", os.getpid(), pool._process.pid)]
    assert attempts(session, *(f"open({path!r})" for path in paths)).splitlines() == ["PermissionError"] * 4


def test_no_privileges_are_left(session):
    code = "import ctypes\nbuf = ctypes.create_string_buffer(24)\nhead = (ctypes.c_uint32 * 2)(0x20080522, 0)\n"
    code += "print(ctypes.CDLL(None).capget(head, buf), sum(buf.raw[:8]))"
    assert session.run(code).text == "0 0"


def test_an_interpreter_killed_from_outside_is_an_infrastructure_error(pool):
    session = pool.open()
    session.run("kept = 1")
    os.kill(pid_of(session), signal.SIGKILL)
    with pytest.raises(InfrastructureError, match="killed from outside"):
        session.run("print(kept)")
    assert session.run("print(kept)").text == "1"
    session.close()


def test_every_way_of_stopping_leaves_no_process_and_no_file():
    with ZygotePool(Limits(timeout_s=1)) as pool:
        parent, scratch = pool._process.pid, Path(pool._scratch)
        stopped, closed, left = pool.open(), pool.open(), pool.open()
        pids = [pid_of(s) for s in (stopped, closed, left)]
        stopped.run("while True: pass")
        closed.run("open('file', 'w').write('x')")
        closed.close()
        left.run("import threading\nthreading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()")
        assert [alive(pid) for pid in pids] == [False, False, True]
        assert len(list(scratch.iterdir())) == 1
    assert not any(alive(pid) for pid in [parent, *pids])
    assert not scratch.exists()


@pytest.mark.parametrize("forks", [False, True])
def test_nothing_survives_a_host_that_is_killed(forks):
    """Not even where a fork of the host lives on and holds copies of all its sockets."""
    host = textwrap.dedent(f"""
        import os, subprocess, threading, time
        from score.sandbox.base import Limits
        from score.sandbox.zygote import ZygotePool
        pool = ZygotePool(Limits(timeout_s=60))
        busy, idle = pool.open(), pool.open()
        idle.run("x = 1")
        threading.Thread(target=busy.run, args=("while True: pass",), daemon=True).start()
        time.sleep(0.2)
        heir = os.fork() if {forks} else 0
        if {forks} and heir == 0:
            time.sleep(60)
        sessions = [session._process.channel.pid for session in (busy, idle)]
        print(pool._scratch, heir, "own_processes" in pool.layers, pool._process.pid, *sessions, flush=True)
        time.sleep(60)
    """)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen([sys.executable, "-c", host], stdout=subprocess.PIPE, text=True, env=environment)
    scratch, heir, apart, parent, *sessions = process.stdout.readline().split()
    names = inside(int(parent)) if apart == "True" else {}
    pids = [int(parent), *(names.get(int(pid), int(pid)) for pid in sessions)]
    try:
        assert all(alive(pid) for pid in pids)
        process.kill()
        process.wait()
        assert eventually(lambda: not any(alive(pid) for pid in pids))
        assert eventually(lambda: not Path(scratch).exists())
    finally:
        process.stdout.close()
        if int(heir):
            os.kill(int(heir), signal.SIGKILL)


def test_children_follow_a_killed_parent_and_that_is_no_observation():
    with ZygotePool(LIMITS) as pool, pool.open() as session:
        session.run("import threading\nthreading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()")
        pid = pid_of(session)
        os.kill(pool._process.pid, signal.SIGKILL)
        assert eventually(lambda: not alive(pid))
        with pytest.raises(InfrastructureError):
            session.run("print(1)")


def test_required_layers_are_listed_or_refused(pool):
    assert set(pool.layers) <= set(isolate.LAYERS)
    with ZygotePool(LIMITS, require=pool.layers) as strict:
        assert strict.layers == pool.layers
