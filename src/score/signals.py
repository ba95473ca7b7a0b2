"""An end that a signal asks for comes, wherever in the program the signal arrives.

The exception of a signal's handler is lost where Python has nobody to hand it to: in a finalizer or in the callback of
a weak reference, which run at any moment, those of the import system among them. Such a signal is sent once more.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

_AGAIN_S = 0.05  # the callback is over by then, or the signal is sent once more again
_SENT = {SystemExit: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}


def exit_on_sigterm() -> Callable[[], None]:
    """SIGTERM becomes an exit like any other, so that `with` blocks end what they started; SIGINT is not lost either.

    For the main thread. Returns what undoes it.
    """
    handler, hook = signal.getsignal(signal.SIGTERM), sys.unraisablehook

    def send_again(lost: Any) -> None:
        number = _SENT.get(lost.exc_type)
        if number is None or threading.current_thread() is not threading.main_thread():
            hook(lost)
            return
        timer = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()

    def undo() -> None:
        signal.signal(signal.SIGTERM, handler)
        sys.unraisablehook = hook

    sys.unraisablehook = send_again
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    return undo
