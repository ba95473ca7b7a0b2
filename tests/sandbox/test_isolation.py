"""What model-written code cannot do: one property, one attempt to break it."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from tests.sandbox.processes import inside, pid_of

from score.errors import InfrastructureError
from score.sandbox import gate, isolate
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


@pytest.fixture
def session(pool):
    with pool.open() as session:
        yield session


def needs(pool, layer):
    if layer not in pool.layers:
        pytest.skip(f"this kernel does not offer {layer}")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def eventually(condition, seconds: float = 15.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def attempts(session, *expressions: str) -> str:
    """Runs each expression by itself; returns a line "allowed" or the exception's name for each."""
    code = "for attempt in [" + ", ".join(f"lambda: {e}" for e in expressions) + "]:\n"
    code += "    try: attempt(); print('allowed')\n    except BaseException as e: print(type(e).__name__)"
    return session.run("import os, socket, ctypes, subprocess, signal, sys\n" + code).text


def test_there_is_no_network(pool, session):
    needs(pool, "no_network")
    said = attempts(
        session,
        "socket.socket()",
        "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
        "socket.socket(socket.AF_UNIX)",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "socket.socketpair()",
        "socket.create_connection(('127.0.0.1', 80), 1)",
    )
    assert said.splitlines() == ["PermissionError"] * 6
    io_uring = "libc = ctypes.CDLL(None, use_errno=True)\nprint(libc.syscall(425, 8, None), ctypes.get_errno())"
    assert session.run(f"import ctypes\n{io_uring}").text == "-1 1"


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


def test_secrets_of_the_environment_are_invisible(pool, session):
    needs(pool, "files")
    assert SECRET not in session.run("import os\nprint(dict(os.environ))").text
    paths = [f"/proc/{name}/environ" for name in ("1", "self", os.getpid(), pool._process.pid)]
    assert attempts(session, *(f"open({path!r})" for path in paths)).splitlines() == ["PermissionError"] * 4


def test_no_privileges_are_left(session):
    code = "import ctypes\nbuf = ctypes.create_string_buffer(24)\nhead = (ctypes.c_uint32 * 2)(0x20080522, 0)\n"
    code += "print(ctypes.CDLL(None).capget(head, buf), sum(buf.raw[:8]))"
    assert session.run(code).text == "0 0"


def test_a_memory_bomb_is_a_memory_error_and_the_session_goes_on(session):
    session.run("kept = 1")
    assert session.run("b = bytearray(8 << 30)").text == "MemoryError"
    assert session.run("parts = []\nwhile True: parts.append(bytearray(1 << 24))").text == "MemoryError"
    assert session.run("parts = None\nprint(kept)").text == "1"


def test_an_output_bomb_fills_neither_memory_nor_the_observation(session):
    observation = session.run("while True: print('x' * 10**6)")
    assert observation.error == "timeout"
    observation = session.run("for _ in range(10**4): print('x' * 10**5)")
    assert len(observation.text) < LIMITS.output_chars + 100


def test_a_file_bomb_meets_its_limit(session):
    assert "OSError" in session.run("with open('big', 'wb') as f:\n    while True: f.write(b'x' * 2**20)").text


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
    session.run("kept = 1")
    assert session.run(f"import os, time\nos.write(3, {payload})\ntime.sleep(60)").error == "died"
    assert session.run("print(kept)").text == "1"


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos._exit(0)",
        "import ctypes\nctypes.string_at(0)",
        "import os\nos.closerange(3, 64)",
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f.__call__()\nf()",
    ],
)
def test_a_dead_interpreter_is_reported_and_its_earlier_state_restored(session, code):
    session.run("kept = 1")
    observation = session.run(code)
    assert observation.error == "died"
    assert observation.text.startswith("Error: the code ended the interpreter")
    assert session.run("print(kept)").text == "1"


def test_an_interpreter_killed_from_outside_is_an_infrastructure_error(session):
    session.run("kept = 1")
    os.kill(pid_of(session), signal.SIGKILL)
    with pytest.raises(InfrastructureError, match="killed from outside"):
        session.run("print(kept)")
    assert session.run("print(kept)").text == "1"


def test_every_way_of_stopping_leaves_no_process_and_no_file():
    with ZygotePool(Limits(timeout_s=0.3)) as pool:
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


def verdict(program, architecture: int, number: int, *arguments: int) -> int:
    """What a BPF program answers to a system call: 0 allows it, else an error number."""
    data, value, line = {0: number, 4: architecture, 16: 0, 32: 0, 40: 0}, 0, 0
    data.update({16 + 8 * place: argument for place, argument in enumerate(arguments)})
    while True:
        opcode, if_true, if_false, operand = program[line]
        line += 1
        if opcode == 0x20:
            value = data[operand]
        elif opcode == 0x06:
            return 0 if operand == 0x7FFF0000 else operand & 0xFFFF
        else:
            test = {0x15: value == operand, 0x35: value >= operand, 0x45: bool(value & operand)}[opcode]
            line += if_true if test else if_false


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_denies_its_calls_and_no_others(machine):
    column, architecture = isolate.MACHINES[machine]
    program = isolate.filter_program(column, architecture)
    clone, clone3, prlimit = ((56, 435, 302), (220, 435, 261))[column]
    denied = isolate.denied_numbers(column)
    for number in set(range(600)) - {clone, clone3, prlimit}:
        assert verdict(program, architecture, number) == (errno.EPERM if number in denied else 0)
    assert verdict(program, architecture, clone, 0x003D0F00) == 0  # the flags of a thread
    assert verdict(program, architecture, clone, signal.SIGCHLD) == errno.EPERM
    assert verdict(program, architecture, clone3) == errno.ENOSYS
    assert [verdict(program, architecture, prlimit, pid) for pid in (0, 1)] == [0, errno.EPERM]
    assert verdict(program, architecture, 0x40000000 + 1) == errno.EPERM
    assert verdict(program, 0x40000003, 1) == errno.EPERM  # 32-bit calls of the same machine
    read_only, writable, private, shared = 1, 3, 2, 1
    mmap = (9, 222)[column]
    kinds = [(p, s) for p in (read_only, writable) for s in (private, shared)]
    assert [verdict(program, architecture, mmap, 0, 0, p, s) for p, s in kinds] == [0, 0, 0, errno.EPERM]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_gate_asks_about_processes_and_nothing_else(machine):
    column, architecture = isolate.MACHINES[machine]
    asks, clone = 0x7FC00000 & 0xFFFF, (56, 220)[column]
    program = gate.program(column, architecture)
    assert (asks, program[-2][-1]) == (0, 0x7FC00000)
    program = [
        *program[:-2],
        (0x06, 0, 0, errno.EAGAIN),
        program[-1],
    ]  # which `verdict` can tell from allowing
    assert verdict(program, architecture, clone, signal.SIGCHLD) == errno.EAGAIN
    assert verdict(program, architecture, clone, 0x003D0F00) == 0
    assert [verdict(program, architecture, number, signal.SIGCHLD) for number in (0, clone + 1, 435)] == [0, 0, 0]
    gated = isolate.filter_program(column, architecture, gated=True)
    assert verdict(gated, architecture, clone, signal.SIGCHLD) == 0


def test_call_numbers_are_those_of_the_system_headers():
    headers = {0: ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h",), 1: ("/usr/include/asm-generic/unistd.h",)}
    seen = 0
    for column, paths in headers.items():
        for path in filter(os.path.exists, paths):
            text = Path(path).read_text()
            numbers = {int(number): name for name, number in re.findall(r"#define __NR_(\w+)\s+(\d+)\s", text)}
            for number, name in isolate.denied_numbers(column).items():
                if number in numbers:  # an older header lacks the newest calls
                    assert numbers[number] == name
                    seen += 1
    if not seen:
        pytest.skip("no system headers here")
