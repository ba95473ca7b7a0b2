"""Keeps Snakemake's scheduler from waking itself ever more often.

After each look at the ready jobs, Snakemake 9.27 starts a timer for another look, because of its limit of jobs per
second; every finished job adds such a look, and none ever ends. After some hundred jobs they take a fifth of a core and
more. One timer at a time has the same effect.
"""

from __future__ import annotations

import threading
from typing import Any


def one_timer(scheduler: Any) -> None:
    """Has a scheduler class (`JobScheduler`) keep one timer at a time; does nothing to one without such timers."""
    if not hasattr(scheduler, _METHOD) or getattr(getattr(scheduler, _METHOD), "single", False):
        return

    def schedule(self: Any, delay: float) -> None:
        def look() -> None:
            self._pending_look = None  # first, so that a look asked for from now on has a timer of its own
            self._open_jobs.release()

        if getattr(self, "_pending_look", None) is None:
            self._pending_look = threading.Timer(delay, look)
            self._pending_look.start()

    schedule.single = True
    setattr(scheduler, _METHOD, schedule)


_METHOD = "_schedule_reevalutation"  # spelled as Snakemake spells it
