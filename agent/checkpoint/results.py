"""Results: the finished model in the bucket, and the mark that the run is complete."""

from __future__ import annotations

import contextlib
import json
import mmap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agent.store import AlreadyExists, NotFound, Store, StoreError
from agent.store.names import RESULTS
from agent.telemetry.ledger import utc_now

DONE = "done.json"


def is_complete(store: Store, *, timeout: float) -> bool:
    """Whether the run has finished, on this VM or another."""
    try:
        store.read(DONE, timeout=timeout)
    except NotFound:
        return False
    return True


def store_result(store: Store, folder: Path, *, attempt: int, step: int, timeout: float) -> str:
    """Upload every file under `folder`, then mark the run complete. Returns the result's name in the bucket.

    Raises:
        StoreError: a file could not be stored; the run is not marked complete.
    """
    prefix = f"{RESULTS}{attempt:05d}"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise StoreError(f"{folder} holds no file: the trainer saved no result")

    def upload(path: Path) -> None:
        name = f"{prefix}/{path.relative_to(folder).as_posix()}"
        with path.open("rb") as source:
            if path.stat().st_size == 0:
                store.create(name, b"", timeout=timeout)
                return
            with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
                store.create(name, view, timeout=timeout)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(upload, files))
    done = {"step": step, "attempt": attempt, "result": prefix, "files": len(files), "finished": utc_now()}
    with contextlib.suppress(AlreadyExists):  # another attempt finished the same run first: it is complete either way
        store.create(DONE, json.dumps(done, indent=1).encode(), timeout=timeout)
    return f"{store.url}/{prefix}"
