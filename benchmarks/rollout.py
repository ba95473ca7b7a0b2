"""What the agent loop itself costs: real episodes, sandbox and client against a server with a fixed reply time.

    python -m benchmarks.rollout                      # the table and the bars on requests in flight
    python -m benchmarks.rollout --memory             # 20,000 episodes, a few minutes

A reply that takes T seconds at concurrency C can at best come C / T times a second. `in flight` is the share of that
ideal: the mean number of requests at the server, as it measured itself, over C, from when C episodes have begun until
fewer than C are left. `CPU ms/step` is the processor time of this process and of the sandbox's, without the server's,
per step that runs code (the plan is in it, and the start and end of the episode); it can be trusted on a busy machine,
the times cannot. The load at the start is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from score.agent.drivers import run_episodes
from score.agent.episode import Episode
from score.agent.protocol import plan_text, step_text
from score.config.schema import Model, Protocol, Sampling
from score.engine import openai
from score.engine.serve import Server, serve
from score.records import Task, derive_seed
from score.sandbox.base import Limits
from score.sandbox.zygote import ZygotePool, own_python

TURNS = (
    plan_text("Compute the numbers one by one, then add them up and answer with the sum."),
    *(step_text(f"Number {n}.", f"x{n} = sum(i * {n} for i in range(100))\nprint(x{n})") for n in range(1, 5)),
    step_text("The sum is the answer.", "final_answer_print(x1 + x2 + x3 + x4)"),
)
"""An episode: a plan, four steps whose variables persist, and the answer."""

STEPS = len(TURNS) - 1
ANSWER = str(sum(i * n for n in range(1, 5) for i in range(100)))
RUNS = ((1, 0.1, 12), (32, 1.0, 192), (256, 4.0, 768))  # concurrency, seconds of a reply, episodes
BARS = ((64, 2.0, 320), (256, 4.0, 768))
IDEAL_SHARE, CPU_MS, EPISODES, GROWTH_MB = 0.95, 8.0, 20_000, 16.0


class Replies(asyncio.Protocol):
    """The server's side of one connection: answers a chat request with the turn that comes next, after a while.

    It knows no more HTTP than the openai client speaks to it, so that it costs next to nothing.
    """

    in_flight, area, since = 0, 0.0, 0.0  # of all connections: requests at the server, their sum over time

    def __init__(self, seconds: float) -> None:
        self.seconds, self.received = seconds, b""
        self.loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, separator, rest = self.received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
        if not separator or len(rest) < length:
            return
        self.received = rest[length:]
        if head.startswith(b"POST"):
            self.count(+1)
            self.loop.call_later(self.seconds, self.reply, rest.count(b'"assistant"'))
        else:  # /health, /stats
            self.count(0)
            self.send({"area": Replies.area, "at": Replies.since})

    @classmethod
    def count(cls, change: int) -> None:
        now = time.monotonic()
        cls.area += cls.in_flight * (now - cls.since)
        cls.in_flight, cls.since = cls.in_flight + change, now

    def reply(self, turn: int) -> None:
        self.count(-1)
        message = {"role": "assistant", "content": TURNS[min(turn, len(TURNS) - 1)]}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self.send({"choices": [choice], "usage": {"prompt_tokens": 500, "completion_tokens": 50}})

    def send(self, content: dict) -> None:
        body = json.dumps(content).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode() + body)


async def answer(port: int, seconds: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Replies(seconds), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


@contextlib.contextmanager
def served(seconds: float, log: Path) -> Iterator[Server]:
    words = [sys.executable, "-m", "benchmarks.rollout", "--serve-seconds", str(seconds), "--port"]
    with serve(lambda port: [*words, port], log) as server:
        yield server


def in_flight(server: Server) -> tuple[float, float]:
    """(requests in flight summed over time, until when), as the server counts them."""
    with urllib.request.urlopen(f"{server.url}/stats") as reply:
        stats = json.load(reply)
    return stats["area"], stats["at"]


@dataclass
class Run:
    """A run's course."""

    server: Server
    concurrency: int
    episodes: int
    done: int = 0
    marks: list[tuple[float, float]] = field(default_factory=list)  # at the start and the end of the steady part

    def episode_done(self, episode: Episode) -> None:
        if episode.answer != ANSWER:
            raise SystemExit(f"an episode ended as {episode.stop}, {episode.failure}")
        self.done += 1
        if self.done in (self.concurrency, self.episodes - self.concurrency + 1):
            self.marks.append(in_flight(self.server))

    def share(self) -> float:
        """Of the ideal number of requests in flight, over the steady part."""
        (area0, start), (area1, end) = self.marks
        return (area1 - area0) / (end - start) / self.concurrency


def spent(server: Server) -> tuple[float, float]:
    """(seconds of processor time so far, MiB of memory now) of this process and the sandbox's."""
    own = os.times()
    cpu, pages, pids = own.user + own.system, 0, [os.getpid()]
    while pids:
        pid = pids.pop()
        with contextlib.suppress(OSError):
            if pid != os.getpid():
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                cpu += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # its own, and its ended children's
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            below = (thread / "children" for thread in Path(f"/proc/{pid}/task").iterdir())
            pids += [int(n) for path in below for n in path.read_text().split() if int(n) != server.process.pid]
    return cpu, pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def episodes(count: int) -> Iterator[Episode]:
    for n in range(count):
        task = Task(str(n), f"What is the sum of the numbers of question {n}?", (ANSWER,), "benchmark")
        yield Episode(task, Protocol(), seed=derive_seed(n))


def play(run: Run, pool: ZygotePool) -> tuple[float, float]:
    """(episodes per second, processor milliseconds per step)."""
    entry = Model(engine="oracle", batch=run.concurrency)
    engine = openai.connect(entry, "m", server=run.server)
    before, started = spent(run.server)[0], time.monotonic()
    run_episodes(episodes(run.episodes), engine, Sampling(), pool, {}, run.episode_done)
    rate = run.episodes / (time.monotonic() - started)
    return rate, 1000 * (spent(run.server)[0] - before) / (run.episodes * STEPS)


def table(pool: ZygotePool, log: Path) -> None:
    print(f"{'concurrency':>12}{'reply s':>9}{'episodes':>10}{'episodes/s':>12}{'in flight':>11}{'CPU ms/step':>13}")
    for concurrency, seconds, count in dict.fromkeys((*RUNS, *BARS)):
        with served(seconds, log) as server:
            run = Run(server, concurrency, count)
            rate, cpu = play(run, pool)
        met = "" if run.share() >= IDEAL_SHARE and cpu <= CPU_MS else "  MISSED"
        bar = f"  bars {IDEAL_SHARE:.0%}, {CPU_MS:g} ms{met}" if (concurrency, seconds, count) in BARS else ""
        print(f"{concurrency:12}{seconds:9g}{count:10}{rate:12.2f}{run.share():11.1%}{cpu:13.2f}{bar}", flush=True)


def memory(pool: ZygotePool, log: Path) -> None:
    """Whether the harness grows over many episodes, once it has warmed up on a tenth of them."""
    sizes = []
    with served(0.0, log) as server:
        for tenth in range(1, 11):
            run = Run(server, 64, EPISODES // 10)
            rate, cpu = play(run, pool)
            sizes.append(spent(server)[1])
            done = tenth * run.episodes
            print(f"{done:8} episodes {sizes[-1]:9.1f} MiB {rate:8.2f}/s {cpu:6.2f} ms/step", flush=True)
    grown = max(sizes[1:]) - sizes[0]
    verdict = "flat" if grown <= GROWTH_MB else "NOT FLAT"
    print(f"at most {grown:.1f} MiB above the first {EPISODES // 10} episodes: {verdict} (bar {GROWTH_MB:g} MiB)")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", action="store_true", help=f"play {EPISODES} episodes and watch the memory")
    parser.add_argument("--log", type=Path, default=Path(os.devnull), help="output of the server")
    parser.add_argument("--serve-seconds", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.port is not None:
        asyncio.run(answer(args.port, args.serve_seconds))
        return
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    machine = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Linux {platform.release()}"
    print(f"{machine}, Python {platform.python_version()}, load {load}", flush=True)
    with ZygotePool(Limits(), python=own_python()) as pool:
        (memory if args.memory else table)(pool, args.log)


if __name__ == "__main__":
    main()
