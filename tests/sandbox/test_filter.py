"""The seccomp programs, executed here line by line: which calls they deny, and that the numbers are the kernel's."""

from __future__ import annotations

import errno
import os
import re
import signal
from pathlib import Path

import pytest

from score.sandbox import gate, isolate


def verdict(program, architecture: int, number: int, *arguments: int) -> int:
    """What a BPF program answers to a system call: 0 allows it, else an error number."""
    data, value, line = {0: number, 4: architecture}, 0, 0
    for place, argument in enumerate(arguments):
        data |= {16 + 8 * place: argument & 0xFFFFFFFF, 20 + 8 * place: argument >> 32}
    while True:
        opcode, if_true, if_false, operand = program[line]
        line += 1
        if opcode == 0x20:
            value = data.get(operand, 0)
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
    assert [verdict(program, architecture, prlimit, 0, 7, new) for new in (1, 1 << 32)] == [errno.EPERM] * 2
    fcntl, ioctl = ((72, 16), (25, 29))[column]
    own = [verdict(program, architecture, fcntl, 3, command) for command in range(20)]
    assert [command for command, answer in enumerate(own) if answer] == [8, 10, 15]
    assert [bool(verdict(program, architecture, ioctl, 3, 0x8900 + i)) for i in range(4)] == [False, True, True, False]
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
