"""Results: the finished model in the bucket, and the mark that the run is complete."""

from __future__ import annotations

import mmap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from agent.checkpoint.line import Line
from agent.checkpoint.lines import LinesObject
from agent.store import Store, StoreError
from agent.store.names import RESULTS
from agent.telemetry.ledger import utc_now


def is_complete(line: Line, *, timeout: float) -> bool:
    """Whether the run has finished, on this VM or another."""
    newest = line.newest(timeout=timeout)
    return newest is not None and newest.kind == "done"


def mark_complete(
    store: Store, line: Line, *, attempt: int, claimant: str, result: dict[str, Any], lines: LinesObject, timeout: float
) -> None:
    """Mark the run complete, `lines` with it. Raises StoreError, and Superseded where another VM trains this run."""
    if lines.name:
        store.create(lines.name, lines.body, timeout=timeout)
    result = result | {"attempt": attempt, "finished": utc_now()}
    line.finish(attempt=attempt, claimant=claimant, result=result, lines=lines.name, timeout=timeout)


def store_result(
    store: Store, line: Line, folder: Path, *, attempt: int, claimant: str, step: int, lines: LinesObject,
    timeout: float,
) -> str:  # fmt: skip
    """Upload every file under `folder`, then mark the run complete. Returns the result's name in the bucket.

    Raises:
        StoreError: a file could not be stored; the run is not marked complete.
        Superseded: another VM trains this run.
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
            problem: StoreError | None = None
            with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
                try:
                    store.create(name, view, timeout=timeout)
                except StoreError as error:  # its frames hold views of the map, which could not be closed then
                    error.__cause__ = error.__context__ = None
                    problem = error.with_traceback(None)
            if problem:
                raise problem

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(upload, files))
    done = {"step": step, "result": prefix, "files": len(files)}
    mark_complete(store, line, attempt=attempt, claimant=claimant, result=done, lines=lines, timeout=timeout)
    return f"{store.url}/{prefix}"
