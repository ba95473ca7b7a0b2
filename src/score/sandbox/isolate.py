"""What a sandboxed child may not do, enforced by the kernel: rlimits, namespaces, Landlock, seccomp. No root needed.

Each layer is used where the kernel offers it, and `confine` returns the names of those that are active:

    namespaces       own user and (empty) network namespace, shared by all children of one parent
    limits           address space, file size, open files, no core dumps
    files            Landlock: only the scratch folder can be written, only Python and system libraries can be read
    no_network       no sockets of any family, no io_uring
    no_exec          no other program
    no_fork          no other process (threads are allowed): a fork bomb ends at its first fork
    no_interference  no signals to, tracing of or limits on other processes, no mounts or namespaces, no changes of
                     mode, owner or times of files (Landlock does not cover those), no lasting IPC objects

Not covered: the number of files and threads (only size and memory are bounded), CPU use between steps, kernel bugs.
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

LAYERS = ("namespaces", "limits", "files", "no_network", "no_exec", "no_fork", "no_interference")

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
        utimes 235 -                futimesat 261 -             utimensat 280 88
    """,
}
_CLONE, _CLONE3, _PRLIMIT = (56, 220), (435, 435), (302, 261)
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH_*

_libc = ctypes.CDLL(None, use_errno=True)


def _syscall(number: int, *arguments: int | ctypes.Array | None) -> int:
    """A raw system call's result, -1 on failure."""
    return _libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))


def _prctl(option: int, *arguments: int) -> bool:
    return _libc.prctl(option, *(ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4])) == 0


def enter_namespaces() -> bool:
    """Moves this (single-threaded) process into a new user and network namespace; False if the system refuses.

    Tried in a throw-away child first: some systems allow the move but not the identity mapping that must follow it,
    and there is no way back.
    """
    pid = os.fork()
    if pid == 0:
        os._exit(0 if _unshare() else 1)
    return os.waitpid(pid, 0)[1] == 0 and _unshare()


def _unshare() -> bool:
    new_user, new_net = 0x10000000, 0x40000000
    uid, gid = os.geteuid(), os.getegid()
    if _libc.unshare(new_user | new_net) != 0:
        return False
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    except OSError:
        return False
    return True


def confine(scratch: str, memory_mb: int, file_mb: int, parent: int) -> tuple[str, ...]:
    """Confines this process for good; it dies with `parent` (its pid), whatever it does.

    Returns the active layers' names, without "namespaces", which is the parent's.
    """
    _limit(memory_mb, file_mb)
    _drop_capabilities()
    _prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG; after the change of credentials, which would clear it
    if os.getppid() != parent:
        os._exit(1)  # it died before the line above
    _prctl(38, 1)  # PR_SET_NO_NEW_PRIVS, which the next two need
    layers = ["limits"]
    if _restrict_files(scratch):
        layers.append("files")
    if _filter_calls():
        layers.extend(DENIED)
    return tuple(layers)


def _limit(memory_mb: int, file_mb: int) -> None:
    wanted = {
        resource.RLIMIT_AS: memory_mb << 20,
        resource.RLIMIT_FSIZE: file_mb << 20,
        resource.RLIMIT_NOFILE: 64,
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


def _restrict_files(scratch: str) -> bool:
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


def _filter_calls() -> bool:
    """Installs the seccomp filter, a classic BPF program over (number, architecture, arguments) of each system call."""
    if os.uname().machine not in MACHINES:
        return False
    column, architecture = MACHINES[os.uname().machine]
    program = b"".join(struct.pack("HBBI", *line) for line in filter_program(column, architecture))
    code = ctypes.create_string_buffer(program, len(program))
    filter_ = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code)))
    return _prctl(22, 2, ctypes.addressof(filter_))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def filter_program(column: int, architecture: int) -> list[tuple[int, int, int, int]]:
    """BPF lines: (opcode, jump if true, jump if false, operand). `column` picks the machine's call numbers."""
    load, equal, at_least, has_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    number_at, architecture_at, argument0_at = 0, 4, 16
    allow = (answer, 0, 0, 0x7FFF0000)
    deny, absent = ((answer, 0, 0, 0x00050000 | code) for code in (errno.EPERM, errno.ENOSYS))
    clone_thread = 0x00010000
    lines = [(load, 0, 0, architecture_at), (equal, 1, 0, architecture), deny, (load, 0, 0, number_at)]
    lines += [(at_least, 0, 1, 0x40000000), deny]  # the x32 twins of the x86_64 calls
    lines += [(equal, 0, 1, _CLONE3[column]), absent]  # its flags lie in memory; libc then falls back to clone
    lines += [(equal, 0, 4, _CLONE[column]), (load, 0, 0, argument0_at), (has_bit, 0, 1, clone_thread), allow, deny]
    lines += [(equal, 0, 4, _PRLIMIT[column]), (load, 0, 0, argument0_at), (equal, 0, 1, 0), allow, deny]  # own only
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
