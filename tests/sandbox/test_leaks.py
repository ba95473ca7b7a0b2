"""Whatever sessions do and however they end: no process, descriptor, folder or memory stays behind."""

from __future__ import annotations

import gc
import os
import random
import re
from pathlib import Path

import pytest
from tests.sandbox.processes import alive, inside

from score.sandbox.base import Limits
from score.sandbox.session import ZygoteSession
from score.sandbox.zygote import ZygotePool

STEPS = (
    "x = [0] * 1000\nprint(len(x))",
    "print(1 + 1)",
    "undefined",
    "open(f'f{len(x)}', 'w').write('text')",
    "import os\nprint(os.listdir())",
    "print(web_search('q'))",
    "left_open = open('left', 'w')",
    "final_answer_print('done')",
    "import threading\nthreading.Thread(target=print).start()",
    "import numpy\na = numpy.zeros(10**6)\na[:] = 1",
    "def f(): f()\nf()",
)
ENDS = (
    "while True: pass",
    "import os\nos._exit(0)",
    "import os\nos.closerange(0, 64)",
    "import os\nos.write(3, b'x' * 1000)",
    "import threading\nthreading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()",
    "import os\nfor _ in range(20): os.mkdir('d'), os.chdir('d')",
)
MOST_LIVE = 6


def random_life(pool: ZygotePool, steps: int, rng: random.Random) -> None:
    """So many steps in a changing handful of sessions of both kinds, all of which are closed in the end."""
    live: list[ZygoteSession] = []
    for _ in range(steps):
        if not live or (len(live) < MOST_LIVE and rng.random() < 0.1):
            live.append(pool.open({"web_search": str.upper}, reversible=rng.random() < 0.5))
        session = rng.choice(live)
        session.run(rng.choice(ENDS) if rng.random() < 0.03 else rng.choice(STEPS))
        chance = rng.random()
        if chance < 0.05:
            session.restore(rng.randint(0, session.steps))
        elif chance < 0.08 and len(live) < MOST_LIVE:
            live += session.branch(rng.randint(0, session.steps), rng.randint(1, 3))
        elif chance < 0.15 or session.steps > 20:
            live.remove(session)
            session.close()
    for session in live:
        session.close()


def resident_kb(pid: int | str) -> int:
    """Memory of a process, in KiB, each shared page divided among those who share it."""
    return int(re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)[1])


def held(pool: ZygotePool, parent: int) -> tuple[set[int], int, int, set[str]]:
    """What may not grow: processes, our and the warm parent's descriptors, files."""
    processes = set(inside(pool._process.pid))
    ours, theirs = (len(os.listdir(f"/proc/{pid}/fd")) for pid in ("self", parent))
    return processes, ours, theirs, set(os.listdir(pool._scratch))


@pytest.mark.parametrize("steps", [300, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_a_random_life_leaves_nothing_behind(steps):
    with ZygotePool(Limits(timeout_s=1, memory_mb=1024, output_chars=400, file_mb=4)) as pool:
        parent = inside(pool._process.pid)[1] if "own_processes" in pool.layers else pool._process.pid
        rng = random.Random(0)
        random_life(pool, 100, rng)  # first uses of allocators and caches are no leaks
        gc.collect()
        before, memory = held(pool, parent), {pid: resident_kb(pid) for pid in ("self", parent)}
        random_life(pool, steps, rng)
        gc.collect()
        assert held(pool, parent) == before
        grown = {pid: resident_kb(pid) - before_kb for pid, before_kb in memory.items()}
        print("grown by KiB:", *grown.values(), "of", *memory.values())
        assert max(grown.values()) < 8 * 1024
        assert alive(parent)
