"""An end that a signal asks for comes, wherever in the program the signal arrives, and not in the midst of some things.

Python drops the exception of a signal's handler where it has nobody to hand it to: in a finalizer and in a weak
reference's callback. These run at any moment, in the middle of an import too. Such a signal is sent once more.

What is not covered: a second signal while the first is being dropped, and one that comes while the interpreter ends.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

_AGAIN_S = 0.05  # the finalizer is over by then, or drops the signal again


class _Told(SystemExit):
    """By SIGTERM; no exit of the program's own."""


_SENT = {_Told: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}


def exit_on_sigterm() -> Callable[[], None]:
    """SIGTERM becomes an exit like any other, so that `with` blocks end what they started; SIGINT is not lost either.

    For the main thread. Returns what undoes it.
    """
    handler, hook = signal.getsignal(signal.SIGTERM), sys.unraisablehook
    again: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def tell(lost: Any) -> None:
        number = _SENT.get(lost.exc_type)
        main = threading.main_thread()
        if number is None or threading.current_thread() is not main or not main.is_alive():
            hook(lost)
        else:
            again.put(number)

    def undo() -> None:
        signal.signal(signal.SIGTERM, handler or signal.SIG_DFL)
        sys.unraisablehook = hook
        again.put(None)

    threading.Thread(target=_send, args=[again], daemon=True).start()
    sys.unraisablehook = tell
    signal.signal(signal.SIGTERM, _told)
    return undo


@contextlib.contextmanager
def put_off() -> Iterator[None]:
    """SIGTERM and SIGINT take effect after the block, so that nothing is started unseen or left half ended."""
    if not in_main_thread():
        yield
        return
    late: list[int] = []
    handlers = {number: signal.getsignal(number) for number in _SENT.values()}
    try:
        for number in handlers:
            signal.signal(number, lambda number, frame: late.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for number in dict.fromkeys(late):  # the first may be one that is ignored
            signal.raise_signal(number)


def in_main_thread() -> bool:
    """Where alone handlers can be set."""
    return threading.current_thread() is threading.main_thread()


def _told(*_: object) -> NoReturn:
    raise _Told(128 + signal.SIGTERM)


def _send(numbers: queue.SimpleQueue[int | None]) -> None:
    while (number := numbers.get()) is not None:
        time.sleep(_AGAIN_S)
        os.kill(os.getpid(), number)
