"""How long a notice takes to reach the agent: the watch's long poll beside a poll every second.

    python -m infra.bench.notice [--notices 200] [--polls 10]

The metadata server is this process, the agent's watch another one; both read the same monotonic clock. A notice counts
from just before the server's value changes until it is in the agent's queue.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import statistics
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import TypedDict

from agent.notices import Notices
from agent.notices.metadata import MetadataClient, watch_metadata
from infra.bench.figures import Target
from infra.local.metadata import MetadataServer

KEY = "instance/preempted"
POLL_EVERY_S = 1.0
_PATIENCE_S = 20.0


class Latency(TypedDict):
    """Milliseconds."""

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class Result(TypedDict):
    long_poll: Latency
    poll_1s: Latency
    median_ratio: float


def measure(notices: int = 200, polls: int = 10) -> Result:
    """Give `notices` notices to the agent's watch and `polls` to one that asks every second."""
    with MetadataServer() as server:
        with _watcher(_long_poll, server.host) as heard:
            watched = [_give_notice(server, heard, 0.03) for _ in range(notices)]
        with _watcher(_poll, server.host) as heard:
            polled = [_give_notice(server, heard, POLL_EVERY_S) for _ in range(polls)]
    long_poll, poll = summarize(watched), summarize(polled)
    return Result(long_poll=long_poll, poll_1s=poll, median_ratio=round(poll["p50_ms"] / long_poll["p50_ms"], 1))


def targets(result: Result) -> list[Target]:
    watch = result["long_poll"]
    return [
        Target("notice to agent, p50", watch["p50_ms"], 10.0, "ms"),
        Target("notice to agent, p99", watch["p99_ms"], 50.0, "ms"),
    ]


def _give_notice(server: MetadataServer, heard: Connection, longest_pause_s: float) -> float:
    """Seconds until the watcher had it. Then the value goes back, and a random pause hits any moment of its poll."""
    given = time.monotonic()
    server.set(KEY, "TRUE")
    at = _hear(heard)
    server.set(KEY, "FALSE")
    _hear(heard)
    time.sleep(random.uniform(0, longest_pause_s))  # noqa: S311 - no secret
    return at - given


def _hear(heard: Connection) -> float:
    if not heard.poll(_PATIENCE_S):
        raise TimeoutError(f"nothing came from the watcher within {_PATIENCE_S:g} s")
    at: float = heard.recv()
    return at


@contextmanager
def _watcher(target: Callable[[str, Connection], None], host: str) -> Iterator[Connection]:
    """A process that runs `target`. It sends the time at which it had a notice, and the time at which it saw the value
    calm (again): the first of those says that it is ready."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=target, args=(host, there), daemon=True)
    process.start()
    try:
        _hear(here)
        yield here
    finally:
        process.kill()
        process.join()


def _long_poll(host: str, tell: Connection) -> None:
    """What the agent runs."""

    class Client(MetadataClient):
        async def watch(self, path: str) -> AsyncGenerator[str]:
            async for value in super().watch(path):
                yield value
                if (path, value) == (KEY, "FALSE"):
                    tell.send(time.monotonic())

    async def run() -> None:
        notices = Notices()
        async with Client(host) as client, asyncio.TaskGroup() as group:
            group.create_task(watch_metadata(client, notices))
            while True:
                tell.send((await notices.next()).at)

    asyncio.run(run())


def _poll(host: str, tell: Connection) -> None:
    async def run() -> None:
        last = ""
        async with MetadataClient(host) as client:
            while True:
                value = await client.get(KEY)
                if value != last:
                    tell.send(time.monotonic())
                last = value or ""
                await asyncio.sleep(POLL_EVERY_S)

    asyncio.run(run())


def summarize(seconds: list[float]) -> Latency:
    """Percentiles, in milliseconds."""
    percentiles = statistics.quantiles(seconds, n=100, method="inclusive")
    return Latency(
        count=len(seconds),
        p50_ms=round(1e3 * percentiles[49], 3),
        p99_ms=round(1e3 * percentiles[98], 3),
        max_ms=round(1e3 * max(seconds), 3),
    )


def main() -> Result:
    parser = argparse.ArgumentParser(description="Latency from notice to agent on loopback.")
    parser.add_argument("--notices", type=int, default=200, help="to the agent's watch (default: 200)")
    parser.add_argument("--polls", type=int, default=10, help="to the poll every second (default: 10)")
    arguments = parser.parse_args()
    result = measure(arguments.notices, arguments.polls)
    for name, latency in (("long poll", result["long_poll"]), ("1 s poll", result["poll_1s"])):
        figures = "   ".join(f"{key[:-3]} {latency[key]:8.2f} ms" for key in ("p50_ms", "p99_ms", "max_ms"))
        print(f"{name:10} {latency['count']:4} notices   {figures}")
    print(f"the median notice arrives {result['median_ratio']:g} times sooner")
    return result


if __name__ == "__main__":
    main()
