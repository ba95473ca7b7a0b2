"""What a finalizer drops: a signal's exception is sent again, any other goes where it went before."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import atexit, os, signal, sys, time
from score.signals import exit_on_sigterm
before = sys.unraisablehook
undo = exit_on_sigterm()
class Dies:
    def __del__(self):
        {problem}
{program}
"""
TERM = "os.kill(os.getpid(), signal.SIGTERM)"


def ended(problem: str, program: str) -> subprocess.CompletedProcess:
    program = PROGRAM.format(problem=problem, program=program)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_signal_in_a_finalizer_ends_the_process(sign, code):
    assert ended(f"os.kill(os.getpid(), {sign:d})", "Dies(); time.sleep(200)").returncode == code


@pytest.mark.parametrize(("problem", "told"), [("1 / 0", "ZeroDivisionError"), ("sys.exit(3)", "SystemExit")])
def test_another_exception_in_a_finalizer_is_told_as_before(problem, told):
    process = ended(problem, "Dies(); time.sleep(0.2)")
    assert process.returncode == 0
    assert told in process.stderr


def test_an_end_that_has_begun_is_not_disturbed():
    rest = "atexit.register(lambda: [time.sleep(0.3), print('the rest')])"
    process = ended("pass", f"{rest}; atexit.register(lambda: {TERM})")
    assert process.stdout == "the rest\n"


def test_it_can_be_undone():
    process = ended(TERM, "undo(); print(sys.unraisablehook is before, flush=True); Dies()")
    assert process.stdout == "True\n"
    assert process.returncode == -signal.SIGTERM


PUT_OFF = """
from score.signals import put_off
with put_off():
    {inside}
    print("the block is over", flush=True)
time.sleep(200)
"""


@pytest.mark.parametrize(
    ("inside", "code"),
    [
        (TERM, 143),
        ("os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT),
        (f"os.kill(os.getpid(), signal.SIGINT); {TERM}", -signal.SIGINT),
    ],
)
def test_a_signal_that_is_put_off_ends_the_process_after_the_block(inside, code):
    process = ended("pass", PUT_OFF.format(inside=inside))
    assert (process.stdout, process.returncode) == ("the block is over\n", code)


def test_a_signal_that_is_put_off_is_not_lost_behind_one_that_is_ignored():
    ignored = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
    process = ended("pass", ignored + PUT_OFF.format(inside=f"os.kill(os.getpid(), signal.SIGINT); {TERM}"))
    assert (process.stdout, process.returncode) == ("the block is over\n", 143)
