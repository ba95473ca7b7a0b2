"""What a step of code costs in the sandbox, beside a new process for every step (which also forgets all variables).

    python -m benchmarks.sandbox

Prints medians in milliseconds. It measures latency on an otherwise idle machine, not throughput.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import statistics
import time
from collections.abc import Callable

from score.sandbox.base import Limits
from score.sandbox.zygote import ZygotePool

PRINT = "print(1 + 1)"
SYMPY = "import sympy\nx, y = sympy.symbols('x y')\nprint(sympy.solve([x + 2*y - 5, 3*x - y - 1], [x, y]))"


def median_ms(action: Callable[[], object], times: int) -> float:
    """The median duration of `times` calls, in milliseconds."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)


def zygote() -> tuple[float, float, float]:
    with ZygotePool(Limits()) as pool:

        def start() -> None:
            session = pool.open()  # ends with the pool: ending is not starting
            session.greet()

        with pool.open() as session:
            session.run(SYMPY)
            return (
                median_ms(start, 51),
                median_ms(lambda: session.run(PRINT), 501),
                median_ms(lambda: session.run(SYMPY), 51),
            )


def process_per_step(method: str) -> tuple[float, float, float]:
    context = multiprocessing.get_context(method)

    def run(code: str) -> str:
        outputs = context.Queue()
        process = context.Process(target=_execute, args=(code, outputs))
        process.start()
        output = outputs.get()
        process.join()
        return output

    return 0.0, median_ms(lambda: run(PRINT), 11), median_ms(lambda: run(SYMPY), 5)


def _execute(code: str, outputs: multiprocessing.Queue) -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {})
    outputs.put(out.getvalue())


def main() -> None:
    print(f"{'ms, median':24}{'start':>10}{'print step':>12}{'sympy step':>12}")
    rows = {"warm sandbox": zygote, "process per step, fork": lambda: process_per_step("fork")}
    rows["process per step, spawn"] = lambda: process_per_step("spawn")
    for name, measure in rows.items():
        start, plain, sympy = measure()
        print(f"{name:24}{start:10.2f}{plain:12.2f}{sympy:12.2f}")


if __name__ == "__main__":
    main()
