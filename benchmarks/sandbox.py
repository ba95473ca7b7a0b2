"""What an episode's code costs in the sandbox, beside other ways of running it.

    python -m benchmarks.sandbox

Prints medians in milliseconds, ratios to the sandbox's print step, and the memory of live episodes. It measures latency
on an otherwise idle machine, not throughput; the load at the start is printed. The last two rows need
`pip install jupyter_client ipykernel smolagents` (in an environment of their own, with numpy and sympy).
"""

from __future__ import annotations

import contextlib
import importlib
import io
import multiprocessing
import os
import pickle
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from score.sandbox.base import Limits
from score.sandbox.session import ZygoteSession
from score.sandbox.zygote import ZygotePool

PRINT = "print(1 + 1)"
SYMPY = "import sympy\nx, y = sympy.symbols('x y')\nprint(sympy.solve([x + 2*y - 5, 3*x - y - 1], [x, y]))"
BRANCHES, EPISODES, ROOM_GB = 16, 256, 4.0


@dataclass
class Row:
    """Medians in milliseconds and MiB per live episode; None where there is no such thing.

    `start`: until a first step can run. `restore`: back to the state before the last step. `branch`: 16 copies of it.
    """

    start: float | None = None
    step: float | None = None
    sympy: float | None = None
    restore: float | None = None
    branch: float | None = None
    memory: float | None = None


def median_ms(action: Callable[[], object], times: int, after: Callable[[], object] = lambda: None) -> float:
    """The median duration of `times` calls, in milliseconds; `after` each call comes what is not measured."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
        after()
    return 1000 * statistics.median(seconds)


def pss_mb() -> float:
    """Memory of all processes below this one, in MiB, each shared page divided among those who share it."""
    below, total = [os.getpid()], 0
    while below:
        pid = below.pop()
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                below += map(int, (task / "children").read_text().split())
            if pid != os.getpid():
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += int(re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[1])
    return total / 1024


@contextlib.contextmanager
def live(pool: ZygotePool, count: int, *, reversible: bool) -> Iterator[list[ZygoteSession]]:
    """So many episodes, each of which has run a step."""
    sessions = [pool.open(reversible=reversible) for _ in range(count)]
    pool.run_many([(session, PRINT) for session in sessions])
    try:
        yield sessions
    finally:
        for session in sessions:
            session.close()


def sandbox(*, reversible: bool) -> Row:
    row, opened = Row(), []

    def start() -> None:
        opened.append(pool.open(reversible=reversible))
        opened[-1].greet()

    def end() -> None:
        while opened:
            opened.pop().close()

    with ZygotePool(Limits()) as pool:
        row.start = median_ms(start, 51, end)
        with pool.open(reversible=reversible) as session:
            session.run(SYMPY)
            row.step = median_ms(lambda: session.run(PRINT), 301)
            row.sympy = median_ms(lambda: session.run(SYMPY), 51)
            if reversible:
                row.restore = median_ms(lambda: session.restore(session.steps - 1), 51, lambda: session.run(PRINT))
                row.branch = median_ms(lambda: opened.extend(session.branch(session.steps, BRANCHES)), 15, end)
        before = pss_mb()
        with live(pool, 32, reversible=reversible):
            row.memory = (pss_mb() - before) / 32
    return row


def process_per_step(method: str) -> Row:
    """A new process for every step, as in the paper's published executor: it imports sympy anew, and the variables that
    can be pickled travel in and out."""
    context = multiprocessing.get_context(method)
    variables = pickle.dumps({})

    def run(code: str) -> str:
        nonlocal variables
        outputs = context.Queue()
        process = context.Process(target=_execute, args=(code, variables, outputs))
        process.start()
        output, variables = outputs.get()
        process.join()
        return output

    return Row(step=median_ms(lambda: run(PRINT), 11), sympy=median_ms(lambda: run(SYMPY), 5))


def _execute(code: str, variables: bytes, outputs: multiprocessing.Queue) -> None:
    out, scope = io.StringIO(), {"sympy": importlib.import_module("sympy"), **pickle.loads(variables)}
    with contextlib.redirect_stdout(out):
        exec(code, scope)
    kept = {name: value for name, value in scope.items() if _pickles(value)}
    outputs.put((out.getvalue(), pickle.dumps(kept)))


def _pickles(value: object) -> bool:
    try:
        pickle.dumps(value)
    except Exception:
        return False
    return True


def jupyter() -> Row:
    """A kernel for each episode; no isolation."""
    from jupyter_client.manager import start_new_kernel

    kernels = []

    def start() -> None:
        kernels.append(start_new_kernel(stderr=subprocess.DEVNULL))

    def run(code: str) -> None:
        kernels[0][1].execute_interactive(code, output_hook=lambda message: None)

    before = pss_mb()
    row = Row(start=median_ms(start, 3))
    for _, client in kernels:
        client.execute_interactive(f"{SYMPY}\n{PRINT}", output_hook=lambda message: None)
    row.memory = (pss_mb() - before) / len(kernels)
    row.step, row.sympy = median_ms(lambda: run(PRINT), 101), median_ms(lambda: run(SYMPY), 21)
    for manager, client in kernels:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return row


def local_executor() -> Row:
    """An interpreter of syntax trees inside of the agent's own process; no isolation either, as it says itself."""
    from smolagents.local_python_executor import LocalPythonExecutor

    def start() -> LocalPythonExecutor:
        executor = LocalPythonExecutor(additional_authorized_imports=["sympy"])
        executor.send_tools({})
        return executor

    executor = start()
    executor(SYMPY)
    return Row(
        start=median_ms(start, 21),
        step=median_ms(lambda: executor(PRINT), 301),
        sympy=median_ms(lambda: executor(SYMPY), 51),
    )


ROWS: dict[str, Callable[[], Row]] = {
    "sandbox": lambda: sandbox(reversible=False),
    "sandbox, with snapshots": lambda: sandbox(reversible=True),
    "process per step, fork": lambda: process_per_step("fork"),
    "process per step, spawn": lambda: process_per_step("spawn"),
    "jupyter kernel": jupyter,
    "smolagents, in process": local_executor,
}


def many() -> None:
    """How much memory `EPISODES` live episodes take with the warm parent, and whether that fits."""
    for reversible in (False, True):
        with ZygotePool(Limits()) as pool, live(pool, EPISODES, reversible=reversible):
            total = pss_mb() / 1024
        kind = "with snapshots" if reversible else "without snapshots"
        print(
            f"{EPISODES} live episodes {kind}: {total:.2f} GB, {'fits' if total <= ROOM_GB else 'ABOVE'} {ROOM_GB:g} GB"
        )


def main() -> None:
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    machine = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Linux {platform.release()}"
    print(f"{machine}, Python {platform.python_version()}, load {load}")
    names = [field.name for field in fields(Row)]
    print(f"{'median ms; memory in MiB':26}" + "".join(f"{name:>10}" for name in (*names, "x plain", "x snaps")))
    steps: list[float] = []
    for name, measure in ROWS.items():
        try:
            row = measure()
        except ImportError:
            print(f"{name:26}  not installed")
            continue
        steps.append(row.step)
        values = [getattr(row, field) for field in names] + [row.step / own for own in steps[:2]]
        cells = ("-" if value is None else f"{value:.2f}" for value in values)
        print(f"{name:26}" + "".join(f"{cell:>10}" for cell in cells), flush=True)
    many()


if __name__ == "__main__":
    main()
