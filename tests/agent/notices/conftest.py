"""A metadata server, a client that does not sleep, and a watch, for tests of the notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from agent.notices import Notices
from agent.notices.metadata import MetadataClient, watch_metadata
from infra.local.metadata import MetadataServer

Watch = Callable[..., AbstractAsyncContextManager[Notices]]
BOTH = ("instance/preempted", "instance/maintenance-event")


@pytest.fixture
def server() -> Iterator[MetadataServer]:
    with MetadataServer() as server:
        yield server


async def until(server: MetadataServer, predicate: Callable[[MetadataServer], bool]) -> None:
    """Wait, without holding up the loop, until the server has seen what `predicate` says."""
    assert await asyncio.to_thread(server.wait_for, predicate, 20)


def both_hang(server: MetadataServer) -> bool:
    return all(server.polls[path] == 1 for path in BOTH)


async def no_sleep(_seconds: float) -> None:
    await asyncio.sleep(0)


@asynccontextmanager
async def watching(server: MetadataServer) -> AsyncIterator[Notices]:
    """The agent's watch of `server`, without the retry's pauses."""
    notices = Notices()
    async with MetadataClient(server.host, sleep=no_sleep) as client:
        watch = asyncio.create_task(watch_metadata(client, notices))
        try:
            yield notices
        finally:
            watch.cancel()
            await asyncio.wait([watch])
    assert watch.cancelled(), watch.exception()
