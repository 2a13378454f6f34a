"""Patience: a bucket that is away, or does not let a young VM in yet, is asked again; connections are kept warm."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from agent.store import Forbidden, Store, StoreError, Unavailable
from agent.trainer.endings import VmUnfit

log = structlog.get_logger()
T = TypeVar("T")

_BUCKET_PATIENCE_S = 900.0  # a grant spreads in 2 to 7 minutes or more: waiting costs less than a VM
_PAUSE_S = (0.5, 15.0)
_WARM_EVERY_S = 60.0
_WARM_CONNECTIONS = 8


async def patiently(call: Callable[[], Awaitable[T]], clock: Callable[[], float]) -> T:
    """What `call` gives, asked again while the bucket is away or does not let us in: on a young VM the grants may still
    spread. Raises VmUnfit after 15 minutes."""
    begun = clock()
    pause, longest = _PAUSE_S
    told = ""
    while True:
        try:
            return await call()
        except (Unavailable, Forbidden) as error:
            waited = clock() - begun
            if waited + pause > _BUCKET_PATIENCE_S:
                raise VmUnfit(f"the bucket could not be used for {waited / 60:.0f} min: {error}") from error
            if str(error) != told:
                told = str(error)
                log.warning("bucket_waits", error=told, message="asked again: grants take minutes to spread")
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
        pause = min(longest, 2 * pause)


async def keep_warm(store: Store) -> None:
    """Token and connections: a save in a hurry need not wait for them."""
    while True:
        with contextlib.suppress(StoreError):
            await asyncio.to_thread(store.warm, _WARM_CONNECTIONS, timeout=10.0)
        await asyncio.sleep(_WARM_EVERY_S)
