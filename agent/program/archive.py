"""Archive: an environment in the bucket, so that the next VM fetches it and does not make it anew.

    environments/KEY/DIGEST/00000 ...     its bytes, a tar.gz in parts
    environments/KEY/whole.json           written last, create-only: no such object, no archive

It is stored while the program trains already, gives way to a window, and is not missed where it fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from agent.program.helper import run_helper
from agent.program.trouble import PrepareError
from agent.store import AlreadyExists, NotFound, Store, StoreError

log = structlog.get_logger()

PREFIX = "environments"
LARGEST = 8 << 30
_PART = 32 << 20
_PART_TIMEOUT_S = 60.0
_PACK_TIMEOUT_S = 1800.0
_WHOLE = "whole.json"


async def fetch_environment(store: Store, key: str, folder: Path, *, until: float) -> bool:
    """Put the environment of that key into `folder`; False where there is none, or it can't be had."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="environment-") as place:
            file = Path(place) / "packed"
            if not await asyncio.to_thread(_fetch, store, key, file):
                return False
            folder.mkdir()
            command = ["tar", "-xzf", str(file), "-C", str(folder)]
            left = max(1.0, until - time.monotonic())
            await run_helper("unpacking the environment", command, folder=folder, env={}, timeout=left)
        return True
    except (StoreError, PrepareError, OSError, ValueError) as error:
        log.warning("environment_not_fetched", key=key, error=str(error))
        shutil.rmtree(folder, ignore_errors=True)
        return False


def _fetch(store: Store, key: str, file: Path) -> bool:
    try:
        whole = json.loads(store.read(f"{PREFIX}/{key}/{_WHOLE}", timeout=_PART_TIMEOUT_S))
    except NotFound:
        return False
    digest = hashlib.sha256()
    with file.open("wb") as out:
        for number in range(int(whole["parts"])):
            part = store.read(_part(key, whole["sha256"], number), timeout=_PART_TIMEOUT_S)
            digest.update(part)
            out.write(part)
    if digest.hexdigest() != whole["sha256"]:
        raise ValueError("it is not what its name says")
    return True


async def keep_environment(store: Store, key: str, folder: Path, *, stop: Callable[[], bool]) -> None:
    """Store it, unless it is there. `stop` is asked before each part. Never raises what can go wrong with a bucket."""
    begun = time.monotonic()
    try:
        if await asyncio.to_thread(store.list, f"{PREFIX}/{key}/{_WHOLE}", timeout=_PART_TIMEOUT_S):
            return
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="environment-") as place:
            file = Path(place) / "packed"
            command = ["nice", "-n", "19", "tar", "-I", "gzip -1", "-cf", str(file), "-C", str(folder), "."]
            await run_helper("packing the environment", command, folder=folder, env={}, timeout=_PACK_TIMEOUT_S)
            size = file.stat().st_size
            if size > LARGEST:
                log.warning("environment_not_kept", key=key, why=f"{size} bytes are more than {LARGEST}")
                return
            parts = await asyncio.to_thread(_send, store, key, file, stop)
    except (StoreError, PrepareError, OSError) as error:
        log.warning("environment_not_kept", key=key, why=str(error))
        return
    if parts:
        log.info("environment_kept", key=key, bytes=size, seconds=round(time.monotonic() - begun, 3))


def _send(store: Store, key: str, file: Path, stop: Callable[[], bool]) -> int:
    """The number of parts; 0 where something else goes first."""
    with file.open("rb") as data:
        digest = hashlib.file_digest(data, "sha256").hexdigest()
        data.seek(0)
        parts = 0
        while part := data.read(_PART):
            if stop():
                return 0
            store.create(_part(key, digest, parts), part, timeout=_PART_TIMEOUT_S)
            parts += 1
    with contextlib.suppress(AlreadyExists):  # another VM was faster: its archive serves as well
        whole = json.dumps({"sha256": digest, "parts": parts, "bytes": file.stat().st_size})
        store.create(f"{PREFIX}/{key}/{_WHOLE}", whole.encode(), timeout=_PART_TIMEOUT_S)
    return parts


def _part(key: str, digest: str, number: int) -> str:
    return f"{PREFIX}/{key}/{digest}/{number:05d}"
