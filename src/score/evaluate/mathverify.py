"""math-verify in a process of its own, killed when a comparison takes too long.

Model answers reach a computer algebra system: `9^{9^{9^9}}` keeps it busy in C code that no signal interrupts, and may
take all memory. The worker starts with the first question, lives as long as its parent and answers one at a time.

    python -m score.evaluate.mathverify     (the worker; JSON lines {"prediction", "golds"} in, true or false out)
"""

from __future__ import annotations

import atexit
import functools
import json
import logging
import os
import re
import resource
import select
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from score.errors import InfrastructureError
from score.evaluate.plain import differ

log = logging.getLogger(__name__)

MEMORY_BYTES = 4 << 30
START_S = 120.0  # importing sympy on a busy file system


class Verifier:
    """One worker process; restarted after a kill. Safe to call from several threads and after a fork."""

    def __init__(self, timeout_s: float = 5.0):
        """`timeout_s`: wall clock for one prediction against all its golds."""
        self.timeout_s = timeout_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = -1
        atexit.register(self.close)

    def equal(self, prediction: str, golds: Sequence[str]) -> bool:
        """Whether math-verify finds `prediction` equal to any gold; False also where it gives no answer in time."""
        return bool(self.compare(prediction, golds))

    def compare(self, prediction: str, golds: Sequence[str]) -> bool | None:
        """The same, but None where it gives no answer in time."""
        with self._lock:
            worker = self._worker()
            worker.stdin.write(json.dumps({"prediction": prediction, "golds": list(golds)}) + "\n")
            worker.stdin.flush()
            reply = _line(worker, self.timeout_s)
            if reply is None:
                log.warning("math-verify gave no verdict within %g s on %.60r", self.timeout_s, prediction)
                self.close()
                return None
            return json.loads(reply)

    def close(self) -> None:
        """Ends the worker that this process started, if any."""
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
        self._process = None

    def _worker(self) -> subprocess.Popen[str]:
        # A forked child must not share its parent's pipe: their questions and answers would mix.
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            self._process, self._owner = _start(), os.getpid()
        return self._process


def _start() -> subprocess.Popen[str]:
    source = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    worker = subprocess.Popen(
        [sys.executable, "-m", "score.evaluate.mathverify"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    if _line(worker, START_S) is None:
        worker.kill()
        raise InfrastructureError("the math-verify worker did not start; see its message above")
    return worker


def _line(worker: subprocess.Popen[str], timeout_s: float) -> str | None:
    """The worker's next line, or None if it said nothing in time or died. Replies are shorter than a pipe's buffer."""
    ready, _, _ = select.select([worker.stdout], [], [], timeout_s)
    return (worker.stdout.readline() or None) if ready else None


def verify(prediction: str, golds: list[str]) -> bool:
    """math-verify itself, without any limit: LaTeX of the prediction against LaTeX of each gold."""
    from math_verify import verify as equal

    guess = _parsed(prediction)
    parsed = (_parsed(gold) for gold in golds)
    return any(not apart(gold, guess) and equal(gold, guess, timeout_seconds=None) for gold in parsed)


def apart(gold: Sequence[Any], guess: Sequence[Any]) -> bool:
    """Whether two parsed answers are numbers of plainly different value, or expressions that are at one point.

    math-verify comes to the same, but first simplifies the difference: 40 ms for 2√3 + 1 against 2√5. A percentage is
    left to it, which takes 9 for 9 %, and so is what differs by less than a thousandth.
    """
    from sympy import Expr, Integral, Limit, Product, Rational, Sum, UnevaluatedExpr

    slow = (UnevaluatedExpr, Sum, Product, Integral, Limit)  # and a percentage is the first of them
    if not gold or not guess or set(map(str, gold[1:])) & set(map(str, guess[1:])):
        return False  # nothing was read, or both were read as the same text
    pair = gold[0], guess[0]
    if not all(isinstance(one, Expr) and not one.has(*slow) for one in pair):
        return False
    symbols = pair[0].free_symbols
    if symbols != pair[1].free_symbols:
        return False  # whether names matter is math-verify's to say
    point = {symbol: Rational(11, 17 + 6 * i) for i, symbol in enumerate(sorted(symbols, key=str))}
    try:
        return differ(*(complex(one.subs(point)) for one in pair))
    except Exception:  # as math-verify does: whatever an expression cannot do, it decides nothing here
        return False


@functools.lru_cache(maxsize=4096)  # the golds come with every prediction
def _parsed(answer: str) -> Sequence[Any]:
    from math_verify import parse

    return parse(f"${_latex(answer)}$", parsing_timeout=None)


def _latex(answer: str) -> str:
    """Repairs what people and Python write: 2^10 as 2^{10}, `**`, `*`, sqrt(x), pi, the degree sign, inner dollars."""
    for written, meant in (("\\$", ""), ("$", ""), ("°", "^\\circ"), ("**", "^"), ("*", " \\cdot ")):
        answer = answer.replace(written, meant)
    answer = re.sub(r"\^(-?\d\d+)", r"^{\1}", answer)
    answer = re.sub(r"(?<!\\)sqrt\(([^()]*)\)", r"\\sqrt{\1}", answer)
    return re.sub(r"(?<![\\a-zA-Z])pi(?![a-zA-Z])", r"\\pi", answer)


def main() -> None:
    from math_verify import parse

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    logging.disable(logging.CRITICAL)  # it warns that its own timeouts are off; the parent's is the one that counts
    parse("$1$", parsing_timeout=None)
    print("ready", flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        print(json.dumps(verify(question["prediction"], question["golds"])), flush=True)


if __name__ == "__main__":
    main()
