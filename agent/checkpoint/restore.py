"""Restore: fetch the newest good checkpoint into an arena, while Python is still importing torch.

Every part is verified against the manifest. A bad or missing one means the next older checkpoint, said loudly; a
bucket that can't be reached means waiting, never an older checkpoint, which would throw work away for nothing.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog
from spot_training.protocol.arena import Arena, ArenaError

from agent.checkpoint.bucket import Checkpoints, Entry
from agent.checkpoint.manifest import Layout, Manifest, ManifestError, Part
from agent.store import Corrupt, Forbidden, NotFound, Store, StoreError, Unavailable

log = structlog.get_logger()
_PART_TIMEOUT_S = 120.0
_KINDS: dict[Layout, str] = {
    "safetensors": "a kind with a session (script, llm and the like)",
    "folder": "kind command",
}


class RestoreError(Exception):
    """There are checkpoints, but none can be used; or the bucket stayed out of reach, or memory is short. `passing`:
    another try, or another VM, may fare better."""

    def __init__(self, text: str, *, passing: bool = False) -> None:
        super().__init__(text)
        self.passing = passing


T = TypeVar("T")


@dataclass(frozen=True)
class Fetched:
    """A verified checkpoint in memory. `bad`: newer ones that were passed over, with the reason each."""

    arena: Arena
    manifest: Manifest
    entry: Entry
    seconds: float
    bad: list[str]


class Stopped(Exception):
    """Nobody waits for this checkpoint any more."""


@dataclass(frozen=True)
class Found(Generic[T]):
    """The newest good checkpoint, and `what` was made of it. `bad` as in `Fetched`."""

    what: T
    manifest: Manifest
    entry: Entry
    bad: list[str]


def fetch_newest(
    checkpoints: Checkpoints, *, timeout: float, connections: int = 16, passed_over: Collection[str] = (),
    stop: threading.Event | None = None,
) -> Fetched | None:  # fmt: skip
    """Fetch the newest good checkpoint into an arena; as `find_newest`. Ends with Stopped soon after `stop` is set."""
    begun = time.monotonic()
    stop = stop or threading.Event()

    def bring(manifest: Manifest, timeout: float) -> Arena:
        return fetch(checkpoints.store, manifest, connections=connections, timeout=timeout, stop=stop)

    found = find_newest(checkpoints, bring, layout="safetensors", timeout=timeout, passed_over=passed_over, stop=stop)
    if found is None:
        return None
    return Fetched(found.what, found.manifest, found.entry, time.monotonic() - begun, found.bad)


def find_newest(
    checkpoints: Checkpoints, bring: Callable[[Manifest, float], T], *, layout: Layout, timeout: float,
    passed_over: Collection[str] = (), stop: threading.Event | None = None,
) -> Found[T] | None:  # fmt: skip
    """The newest checkpoint that `bring` (which has so many seconds) finds good, or None where the run has none yet.
    Blocks; call it in a thread. `passed_over`: folders of checkpoints that can't be trained from. `layout`: what the
    trainer can read.

    Raises:
        RestoreError: every checkpoint is bad, the newest is of another kind of program, the bucket is out of reach for
            `timeout` seconds, or there is no memory for what is to be fetched.
        NewerFormatError: the newest was written by a newer version of this program.
    """
    begun = time.monotonic()
    pause = 0.2
    while True:
        try:
            return _find_newest(checkpoints, bring, layout=layout, timeout=timeout, passed_over=passed_over)
        except (Unavailable, Forbidden) as error:  # a grant may still spread
            left = begun + timeout - time.monotonic()
            if left <= pause:
                raise RestoreError(
                    f"no checkpoint could be fetched within {timeout:.0f} s: {error}", passing=True
                ) from error
            if stop and stop.is_set():
                raise Stopped from None
            log.warning("restore_waits", error=str(error), left_s=round(left))
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            pause = min(10.0, pause * 2)


def _find_newest(
    checkpoints: Checkpoints, bring: Callable[[Manifest, float], T], *, layout: Layout, timeout: float,
    passed_over: Collection[str],
) -> Found[T] | None:  # fmt: skip
    bad: list[str] = []
    for entry in checkpoints.candidates(timeout=timeout):
        if entry.folder in passed_over:
            bad.append(f"{entry.folder}: the trainer failed each time it started from it")
            continue
        try:
            manifest = checkpoints.read(entry, timeout=timeout)
            refuse_layout(checkpoints, entry, manifest, layout)
            what = bring(manifest, timeout)
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
        return Found(what, manifest, entry, bad)
    if bad:
        raise RestoreError("none of the run's checkpoints is good:\n  " + "\n  ".join(bad))
    return None


def refuse_layout(checkpoints: Checkpoints, entry: Entry, manifest: Manifest, layout: Layout) -> None:
    """Raises RestoreError where a checkpoint is not of the kind that reads `layout`."""
    if manifest.layout != layout:
        raise RestoreError(
            f"the run's checkpoints are those of {_KINDS[manifest.layout]}, and workload.kind is {_KINDS[layout]} now, "
            f"which can't read them: {checkpoints.store.url}/{entry.folder}\n"
            "    fix: write another run_id, or the kind as it was"
        )


def fetch(
    store: Store, manifest: Manifest, *, connections: int, timeout: float, stop: threading.Event, rank: int = 0
) -> Arena:
    """Download one rank's parts, in parallel, into a new arena; each is verified against the manifest.

    Raises:
        Corrupt, NotFound: a part is not what the manifest says.
        Unavailable: the store gave no answer in time.
        Stopped: `stop` was set.
    """
    wanted = next(entry for entry in manifest.ranks if entry.rank == rank)
    arena = Arena.create(wanted.size)
    deadline = time.monotonic() + timeout

    def fetch_part(part: Part) -> None:
        problem: StoreError | None = None
        if stop.is_set():
            raise Stopped
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
