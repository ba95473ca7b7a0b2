"""Progress of a long loop as plain lines, a few seconds apart: what, how many, how long still."""

from __future__ import annotations

import sys
import time


class Progress:
    """`tick()` once per item; prints `label 120/480 (25 %), 35 s left` at most every `every_s` seconds, and at the
    end."""

    def __init__(self, label: str, total: int, *, done: int = 0, every_s: float = 5.0) -> None:
        self.label, self.total, self.done, self.every_s = label, total, done, every_s
        self._start = self._last = time.monotonic()
        self._first = done
        if done:
            self._print(f"{done}/{total} found finished")

    def tick(self, note: str = "") -> None:
        self.done += 1
        now = time.monotonic()
        if self.done == self.total:
            self._print(f"{self.done}/{self.total} done in {now - self._start:.0f} s{note and f', {note}'}")
        elif now - self._last >= self.every_s:
            self._last = now
            left = (now - self._start) / (self.done - self._first) * (self.total - self.done)
            share = self.done / self.total
            self._print(f"{self.done}/{self.total} ({share:.0%}), {left:.0f} s left{note and f', {note}'}")

    def _print(self, text: str) -> None:
        print(f"[{self.label}] {text}", file=sys.stderr, flush=True)
