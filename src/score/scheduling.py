"""Two mends of Snakemake's scheduler (9.27), made to the class before the workflow has one.

One timer. After each look at the ready jobs the scheduler starts a timer for another look, because of its limit of jobs
per second; every finished job adds such a look, and none ever ends. After some hundred jobs they take a fifth of a core
and more. One timer at a time has the same effect.

An end that no lock holds up. The scheduler's handler of SIGTERM takes locks that the interrupted main thread may hold,
for instance while it notes that a job failed; it then waits for itself, for ever. Where SLURM cancels a job, the end of
what Snakemake runs and its own SIGTERM come within milliseconds. A thread of its own may wait for a lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

Method = Callable[..., None]


def mend(scheduler: Any) -> None:
    """Mends a scheduler class (`JobScheduler`), once; a method that it has not is left alone."""
    for name, mended in ((_LOOK, _one_timer), (_END, _in_a_thread)):
        method = getattr(scheduler, name, None)
        if method is not None and not hasattr(method, _MENDED):
            new = mended(method)
            setattr(new, _MENDED, True)
            setattr(scheduler, name, new)


def _one_timer(_: Method) -> Method:
    def schedule(self: Any, delay: float) -> None:
        def look() -> None:
            self._pending_look = None  # first, so that a look asked for from now on has a timer of its own
            self._open_jobs.release()

        if getattr(self, "_pending_look", None) is None:
            self._pending_look = threading.Timer(delay, look)
            self._pending_look.start()

    return schedule


def _in_a_thread(end: Method) -> Method:
    def exit_gracefully(self: Any, *signal: Any) -> None:
        self._user_kill = "graceful"  # for the look that is under way, which would start another round of jobs
        # A daemon, since the start of any other thread takes a lock, too.
        threading.Thread(target=end, args=(self, *signal), daemon=True).start()

    return exit_gracefully


_LOOK, _END = "_schedule_reevalutation", "exit_gracefully"  # spelled as Snakemake spells them
_MENDED = "mended_by_score"
