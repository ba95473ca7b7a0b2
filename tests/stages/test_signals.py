"""What a finalizer swallows: a signal's exception is sent again, any other goes where it went before."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, time
from score.signals import exit_on_sigterm
undo = exit_on_sigterm()
class Dies:
    def __del__(self):
        {problem}
{before}
Dies()
time.sleep({sleep_s})
"""


def ended(problem: str, *, before: str = "", sleep_s: float = 50) -> subprocess.CompletedProcess:
    program = PROGRAM.format(problem=problem, before=before, sleep_s=sleep_s)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=40)


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_signal_in_a_finalizer_ends_the_process(sign, code):
    assert ended(f"os.kill(os.getpid(), {sign:d})").returncode == code


def test_another_error_in_a_finalizer_is_told_as_before():
    process = ended("1 / 0", sleep_s=0)
    assert process.returncode == 0
    assert "ZeroDivisionError" in process.stderr


def test_it_can_be_undone():
    assert ended("os.kill(os.getpid(), signal.SIGTERM)", before="undo()").returncode == -signal.SIGTERM
