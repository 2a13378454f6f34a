"""Restore: fetch the newest good checkpoint into an arena, while Python is still importing torch.

Every part is verified against the manifest. A bad or missing one means the next older checkpoint, said loudly; a
bucket that can't be reached means waiting, never an older checkpoint, which would throw work away for nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog
from spot_training.protocol.arena import Arena, ArenaError

from agent.checkpoint.bucket import Checkpoints, Entry
from agent.checkpoint.manifest import Manifest, ManifestError, Part
from agent.store import Corrupt, Forbidden, NotFound, Store, StoreError, Unavailable

log = structlog.get_logger()
_PART_TIMEOUT_S = 120.0


class RestoreError(Exception):
    """There are checkpoints, but none can be used; or the bucket stayed out of reach, or memory is short. `passing`:
    another try, or another VM, may fare better."""

    def __init__(self, text: str, *, passing: bool = False) -> None:
        super().__init__(text)
        self.passing = passing


@dataclass(frozen=True)
class Fetched:
    """A verified checkpoint in memory. `bad`: newer ones that were passed over, with the reason each."""

    arena: Arena
    manifest: Manifest
    entry: Entry
    seconds: float
    bad: list[str]


def fetch_newest(
    checkpoints: Checkpoints, *, timeout: float, connections: int = 16, passed_over: Collection[str] = ()
) -> Fetched | None:
    """Fetch the newest good checkpoint, or return None where the run has none yet. Blocks; call it in a thread.
    `passed_over`: folders of checkpoints that can't be trained from.

    Raises:
        RestoreError: every checkpoint is bad, the bucket is out of reach for `timeout` seconds, or there is no memory
            for what is to be fetched.
        NewerFormatError: the newest was written by a newer version of this program.
    """
    begun = time.monotonic()
    pause = 0.2
    while True:
        try:
            return _fetch_newest(
                checkpoints, begun=begun, timeout=timeout, connections=connections, passed_over=passed_over
            )
        except (Unavailable, Forbidden) as error:  # a grant may still spread
            left = begun + timeout - time.monotonic()
            if left <= pause:
                raise RestoreError(
                    f"no checkpoint could be fetched within {timeout:.0f} s: {error}", passing=True
                ) from error
            log.warning("restore_waits", error=str(error), left_s=round(left))
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            pause = min(10.0, pause * 2)


def _fetch_newest(
    checkpoints: Checkpoints, *, begun: float, timeout: float, connections: int, passed_over: Collection[str]
) -> Fetched | None:
    bad: list[str] = []
    for entry in checkpoints.candidates(timeout=timeout):
        if entry.folder in passed_over:
            bad.append(f"{entry.folder}: the trainer failed each time it started from it")
            continue
        try:
            manifest = checkpoints.read(entry, timeout=timeout)
            arena = fetch(checkpoints.store, manifest, connections=connections, timeout=timeout)
        except (ManifestError, Corrupt, NotFound) as error:
            if isinstance(error, NotFound) and not entry.rolling and checkpoints.line.known:
                continue  # it was never copied as a milestone
            bad.append(f"{entry.folder}: {error}")
            log.error("checkpoint_bad", folder=entry.folder, step=entry.step, error=str(error))
            continue
        except ArenaError as error:  # an older one would not fit either, or throw work away
            raise RestoreError(
                f"the checkpoint of step {entry.step} can't be fetched: {error}", passing=True
            ) from error
        return Fetched(arena, manifest, entry, time.monotonic() - begun, bad)
    if bad:
        raise RestoreError("none of the run's checkpoints is good:\n  " + "\n  ".join(bad))
    return None


def fetch(store: Store, manifest: Manifest, *, connections: int, timeout: float, rank: int = 0) -> Arena:
    """Download one rank's parts, in parallel, into a new arena; each is verified against the manifest.

    Raises:
        Corrupt, NotFound: a part is not what the manifest says.
        Unavailable: the store gave no answer in time.
    """
    wanted = next(entry for entry in manifest.ranks if entry.rank == rank)
    arena = Arena.create(wanted.size)
    deadline = time.monotonic() + timeout

    def fetch_part(part: Part) -> None:
        problem: StoreError | None = None
        with arena.view[part.offset : part.offset + part.size] as into:
            left = max(0.001, deadline - time.monotonic())
            try:
                found = store.read_into(part.name, into, timeout=min(left, _PART_TIMEOUT_S))
            except StoreError as error:
                # Its frames hold views of the arena, and the next try, or the next older one, needs that memory.
                error.__cause__ = error.__context__ = None
                problem = error.with_traceback(None)
        if problem:
            raise problem
        if found != part.crc32c:
            raise Corrupt(f"{part.name}: crc32c is {found:08x}, the manifest says {part.crc32c:08x}")

    with ThreadPoolExecutor(connections, thread_name_prefix="fetch") as pool:
        jobs = [pool.submit(fetch_part, part) for part in wanted.parts]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            for job in jobs:
                job.cancel()
            pool.shutdown(wait=True)
            arena.close()
            raise
    return arena
