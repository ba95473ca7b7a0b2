"""What a sandboxed child may not do, enforced by the kernel: rlimits, namespaces, Landlock, seccomp. No root needed.

Each layer is used where the kernel offers it, and `confine` returns the names of those that are active:

    namespaces       own user and (empty) network namespace, shared by all children of one parent
    own_processes    own process namespace of the parent: nothing else can be seen or signalled, and when the parent
                     ends, however it ends, the kernel ends everything in it
    limits           address space, file size, open files, CPU time over all steps, no core dumps
    files            Landlock: only the scratch folder can be written, only Python and system libraries can be read
    no_network       no sockets of any family, no io_uring
    no_exec          no other program
    no_fork          no other process (threads are allowed): a fork bomb ends at its first fork. Where a session keeps
                     snapshots, `gate.py` lets exactly those forks pass that the host asked for
    no_interference  no signals to, tracing of or limits on other processes, also not by way of the kernel (the owner of
                     a descriptor, timers), no mounts or namespaces, no changes of mode, owner or times of files
                     (Landlock does not cover those), no watching of files, no lasting IPC objects, no memory that could
                     be shared with another process

Not covered: the number of files and threads, which the host counts (`watch.py`); names, sizes and times of files
outside (no right that Landlock knows is needed to ask for them); kernel bugs.
Without "files", a child can read and write what the user can; without "namespaces" too, the environment of the
user's other processes is part of that.
Standard library only. x86_64 and aarch64; on another machine the seccomp layers are missing, and say so by absence.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import struct
import sys
from collections.abc import Sequence

LAYERS = ("namespaces", "own_processes", "limits", "files", "no_network", "no_exec", "no_fork", "no_interference")

# Denied system calls: name, number on x86_64, number on aarch64; "-" where a machine has no such call.
DENIED = {
    "no_network": """
        socket 41 198           socketpair 53 199       connect 42 203          bind 49 200
        listen 50 201           accept 43 202           accept4 288 242         sendmsg 46 211
        sendmmsg 307 269        io_uring_setup 425 425  io_uring_enter 426 426  io_uring_register 427 427
    """,
    "no_exec": "execve 59 221   execveat 322 281",
    "no_fork": "fork 57 -       vfork 58 -",  # clone and clone3 are judged by their flags, below
    "no_interference": """
        kill 62 129                 tkill 200 130               tgkill 234 131              rt_sigqueueinfo 129 138
        rt_tgsigqueueinfo 297 240   pidfd_open 434 434          pidfd_send_signal 424 424   pidfd_getfd 438 438
        ptrace 101 117              process_vm_readv 310 270    process_vm_writev 311 271   process_madvise 440 440
        kcmp 312 272                prctl 157 167               setpgid 109 154             setsid 112 157
        setpriority 141 140         ioprio_set 251 30           sched_setscheduler 144 119  sched_setparam 142 118
        sched_setattr 314 274       sched_setaffinity 203 122   mount 165 40                umount2 166 39
        pivot_root 155 41           chroot 161 51               unshare 272 97              setns 308 268
        open_tree 428 428           move_mount 429 429          fsopen 430 430              fsconfig 431 431
        fsmount 432 432             fspick 433 433              mount_setattr 442 442       name_to_handle_at 303 264
        open_by_handle_at 304 265   bpf 321 280                 perf_event_open 298 241     userfaultfd 323 282
        keyctl 250 219              add_key 248 217             request_key 249 218         memfd_create 319 279
        memfd_secret 447 447        shmget 29 194               msgget 68 186               semget 64 190
        mq_open 240 180             chmod 90 -                  fchmod 91 52                fchmodat 268 53
        fchmodat2 452 452           chown 92 -                  fchown 93 55                lchown 94 -
        fchownat 260 54             setxattr 188 5              lsetxattr 189 6             fsetxattr 190 7
        removexattr 197 14          lremovexattr 198 15         fremovexattr 199 16         utime 132 -
        utimes 235 -                futimesat 261 -             utimensat 280 88            setrlimit 160 164
        seccomp 317 277             timer_create 222 107        inotify_init 253 -          inotify_init1 294 26
        inotify_add_watch 254 27    fanotify_init 300 262
    """,
}
_CLONE, _CLONE3, _PRLIMIT, _MMAP = (56, 220), (435, 435), (302, 261), (9, 222)
# Commands by which a process names whom the kernel signals, and with what, when a descriptor is ready.
_OWNER_COMMANDS = {
    (72, 25): (8, 10, 15),
    (16, 29): (0x8901, 0x8902),
}  # F_SETOWN, _SETSIG, _SETOWN_EX; FIOSETOWN, SIOCSPGRP
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH_*

_libc = ctypes.CDLL(None, use_errno=True)


def _syscall(number: int, *arguments: int | ctypes.Array | None) -> int:
    """A raw system call's result, -1 on failure."""
    return _libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))


def _prctl(option: int, *arguments: int) -> bool:
    return _libc.prctl(option, *(ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4])) == 0


def enter_namespaces() -> tuple[str, ...]:
    """Moves this (single-threaded) process into new namespaces, its children also into a process namespace of their
    own; returns the layers that the system grants.

    Each set is tried in a throw-away child first: some systems allow the move but not the identity mapping that must
    follow it, and there is no way back.
    """
    new_user, new_net, new_pid = 0x10000000, 0x40000000, 0x20000000
    for flags, layers in (
        (new_user | new_net | new_pid, ("namespaces", "own_processes")),
        (new_user | new_net, ("namespaces",)),
    ):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if _unshare(flags) else 1)
        if os.waitpid(pid, 0)[1] == 0 and _unshare(flags):
            return layers
    return ()


def _unshare(flags: int) -> bool:
    uid, gid = os.geteuid(), os.getegid()
    if _libc.unshare(flags) != 0:
        return False
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    except OSError:
        return False
    return True


def die_with_parent(parent: int) -> None:
    """Has the kernel kill this process when the thread that forked it, of process `parent`, ends.

    In a process namespace of its own a process sees 0 as its parent.
    """
    _prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() not in (parent, 0):
        os._exit(1)  # it died before the line above


def adopt_orphans() -> None:
    """Makes this process the parent of those descendants whose own parent ends, as process 1 of a namespace is."""
    _prctl(36, 1)  # PR_SET_CHILD_SUBREAPER


def forbid_new_privileges() -> None:
    """What Landlock and seccomp ask of an ordinary process first."""
    _prctl(38, 1)  # PR_SET_NO_NEW_PRIVS


def confine(
    scratch: str, memory_mb: int, file_mb: int, cpu_s: int, parent: int, *, gated: bool = False
) -> tuple[str, ...]:
    """Confines this process for good; it dies with `parent` (its pid), whatever it does.

    `gated`: `gate.install` has been called, and judges forks from now on. Returns the active layers' names, without
    those of `enter_namespaces`, which are the parent's.
    """
    _limit(memory_mb, file_mb, cpu_s)
    _drop_capabilities()
    die_with_parent(parent)  # after the change of credentials, which would clear it
    forbid_new_privileges()
    layers = ["limits"]
    if restrict_files(scratch):
        layers.append("files")
    if _filter_calls(gated):
        layers.extend(DENIED)
    return tuple(layers)


def _limit(memory_mb: int, file_mb: int, cpu_s: int) -> None:
    wanted = {
        resource.RLIMIT_AS: memory_mb << 20,
        resource.RLIMIT_FSIZE: file_mb << 20,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in wanted.items():
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def _drop_capabilities() -> None:
    """Nothing to drop for an ordinary user; real root and the root of a user namespace lose their powers."""
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
    _libc.capset(header, ctypes.create_string_buffer(24))


def restrict_files(scratch: str) -> bool:
    """Leaves of this process's rights those to write in `scratch` and to read libraries; False if Landlock is missing.

    A second call narrows what the first one left.
    """
    create, add, restrict = 444, 445, 446
    version = _syscall(create, None, 0, 1)
    if version < 1:
        return False
    rights = {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)  # how many access rights this kernel knows
    everything = (1 << rights) - 1
    read_file, read_dir, write_file = 1 << 2, 1 << 3, 1 << 1
    rules = [(scratch, everything & ~1)]  # all but executing
    prefixes = (sys.prefix, sys.base_prefix, sys.exec_prefix, "/usr/lib", "/usr/lib64", "/lib", "/lib64")
    rules += [(path, read_file | read_dir) for path in (*prefixes, "/usr/share/zoneinfo")]
    rules += [(path, read_file) for path in ("/etc/ld.so.cache", "/etc/localtime", "/dev/urandom")]
    rules += [("/dev/null", read_file | write_file)]
    ruleset = _syscall(create, ctypes.create_string_buffer(struct.pack("Q", everything), 8), 8, 0)
    for path, access in rules:
        try:
            folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # this system has no such path
        _syscall(add, ruleset, 1, ctypes.create_string_buffer(struct.pack("=Qi", access, folder)), 0)
        os.close(folder)
    done = _syscall(restrict, ruleset, 0) == 0
    os.close(ruleset)
    return done


Line = tuple[int, int, int, int]
"""Of a classic BPF program: opcode, jump if true, jump if false, operand."""
LOAD, EQUAL, AT_LEAST, HAS_BIT, ANSWER = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER_AT, ARCHITECTURE_AT, ARGUMENT0_AT = 0, 4, 16  # offsets in what the program sees of a system call
ALLOW = (ANSWER, 0, 0, 0x7FFF0000)
CLONE_THREAD = 0x00010000


def packed(program: Sequence[Line]) -> tuple[ctypes.Array, ctypes.Array]:
    """(sock_fprog, the code that it points to): the form in which the kernel takes a program."""
    lines = b"".join(struct.pack("HBBI", *line) for line in program)
    code = ctypes.create_string_buffer(lines, len(lines))
    return ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))), code


def _filter_calls(gated: bool) -> bool:
    """Installs the seccomp filter."""
    if os.uname().machine not in MACHINES:
        return False
    program, _code = packed(filter_program(*MACHINES[os.uname().machine], gated=gated))
    return _prctl(22, 2, ctypes.addressof(program))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def filter_program(column: int, architecture: int, *, gated: bool = False) -> list[Line]:
    """`column` picks the machine's call numbers. With `gated`, another filter decides about clone."""
    load, equal, at_least, has_bit, answer = LOAD, EQUAL, AT_LEAST, HAS_BIT, ANSWER
    number_at, architecture_at, argument0_at = NUMBER_AT, ARCHITECTURE_AT, ARGUMENT0_AT
    allow, clone_thread = ALLOW, CLONE_THREAD
    prot_write, map_shared = 2, 1
    deny, absent = ((answer, 0, 0, 0x00050000 | code) for code in (errno.EPERM, errno.ENOSYS))
    lines = [(load, 0, 0, architecture_at), (equal, 1, 0, architecture), deny, (load, 0, 0, number_at)]
    lines += [(at_least, 0, 1, 0x40000000), deny]  # the x32 twins of the x86_64 calls
    lines += [(equal, 0, 1, _CLONE3[column]), absent]  # its flags lie in memory; libc then falls back to clone
    if not gated:
        lines += [(equal, 0, 4, _CLONE[column]), (load, 0, 0, argument0_at), (has_bit, 0, 1, clone_thread), allow, deny]
    lines += [(equal, 0, 6, _MMAP[column]), (load, 0, 0, argument0_at + 2 * 8), (has_bit, 0, 3, prot_write)]
    lines += [(load, 0, 0, argument0_at + 3 * 8), (has_bit, 0, 1, map_shared), deny, allow]
    lines += [(equal, 0, 9, _PRLIMIT[column]), (load, 0, 0, argument0_at), (equal, 1, 0, 0), deny]  # own only,
    lines += [(load, 0, 0, argument0_at + 2 * 8), (equal, 0, 2, 0)]  # and only to look: the new limit's address is null
    lines += [(load, 0, 0, argument0_at + 2 * 8 + 4), (equal, 1, 0, 0), deny, allow]
    for numbers, commands in _OWNER_COMMANDS.items():
        lines += [(equal, 0, 3 + len(commands), numbers[column]), (load, 0, 0, argument0_at + 8)]
        lines += [(equal, len(commands) - place, 0, command) for place, command in enumerate(commands)]
        lines += [allow, deny]
    for number in denied_numbers(column):
        lines += [(equal, 0, 1, number), deny]
    return [*lines, allow]


def denied_numbers(column: int) -> dict[int, str]:
    """The denied calls' names by their numbers; `column` 0 is x86_64, 1 is aarch64."""
    calls = {}
    for table in DENIED.values():
        cells = table.split()
        for name, number in zip(cells[::3], cells[1 + column :: 3], strict=True):
            if number != "-":
                calls[int(number)] = name
    return calls
