"""What a trainer made of its data, kept in the run's bucket: tokens of text, tables of samples with pictures.

Made once, fetched by each VM that follows.

In the run's own folder, where its VMs may create and read, and neither overwrite nor delete:

    tokens/KEY/SHA256         pieces, named by what is in them: an upload that was cut off is taken up where it stopped
    tokens/KEY/index-0.json   written last: which pieces make which file. Without it nothing is there

Each piece is held against its digest. One that is rotten or gone makes the whole unusable: the tokens are made again,
and kept beside it under index-1.json. It is the trainer that fetches and keeps, not the agent: it alone knows which
tokens it wants, and can make them itself where the bucket has none. Runs do not share them: by the key alone nobody
can tell whether what lies there is what the text would give, and the VMs of a run trust no other run's.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from agent.config import RunConfig
from agent.store import AlreadyExists, Corrupt, NotFound, Store, StoreError, open_store
from agent.store.names import TOKENS

FORMAT = 1
PIECE = 16 << 20
"""Bytes: small enough for an emergency save to pass one that is on its way."""
FETCHED_AT_ONCE = 8
CALL_S = 120.0
FETCH_S = 1200.0
"""Well within supervision.start_timeout: what takes longer is made here."""
KEEP_S = 3600.0
PAUSE_S = 30.0


class Unusable(Exception):
    """What is kept is not whole. `pieces`: those that are not what their names say."""

    def __init__(self, why: str, *pieces: str) -> None:
        super().__init__(why)
        self.pieces = set(pieces)


def _say(text: str) -> None:
    print(text, flush=True)


@dataclass
class Kept:
    """What one run keeps. `store` is open at the run's own folder."""

    store: Store
    say: Callable[[str], None] = _say
    _bad: set[str] = field(default_factory=set)
    """Objects that were found rotten: no use to a new index."""

    @classmethod
    def of(cls, run: RunConfig) -> Kept | None:
        """None without an agent: then nothing is saved to the bucket."""
        if not os.environ.get("SPOT_AGENT_SOCKET"):
            return None
        return cls(open_store(f"{run.checkpoint.bucket}/{run.run_id}"))

    def fetch(self, key: str, folder: Path) -> bool:
        """Fill `folder`, which is empty, with what is kept under `key`. False: make it; it was said why."""
        deadline = time.monotonic() + FETCH_S
        try:
            found = self._indexes(key)
            for index in reversed(found):  # the later, the likelier to be good
                try:
                    self._fetch(index, folder, deadline)
                except (Unusable, Corrupt, NotFound) as error:
                    self._bad |= {index} | (error.pieces if isinstance(error, Unusable) else set())
                    self.say(f"tokens kept in {self.store.url}/{index} can't be used: {error}")
                else:
                    return True
        except StoreError as error:
            self.say(f"tokens could not be fetched, they are made here: {error}")
        return False

    def keep(self, key: str, folder: Path) -> threading.Thread:
        """Put the files of `folder` into the bucket, unless they are there: beside the training, which waits for
        nothing of it. It ends with the process; the next VM goes on with it."""
        thread = threading.Thread(target=self._keep_patiently, args=(key, folder), name="keep-tokens", daemon=True)
        thread.start()
        return thread

    def _indexes(self, key: str) -> list[str]:
        return [found.name for found in self.store.list(f"{TOKENS}{key}/index-", timeout=CALL_S)]

    def _fetch(self, index: str, folder: Path, deadline: float) -> None:
        files = _read_index(self.store.read(index, timeout=CALL_S))
        wanted = []
        for name, pieces in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            at = 0
            with path.open("wb") as out:
                out.truncate(sum(piece["size"] for piece in pieces))
            for piece in pieces:
                wanted.append((path, at, piece))
                at += piece["size"]

        def fetch(task: tuple[Path, int, dict[str, Any]]) -> None:
            path, at, piece = task
            content = bytearray(piece["size"])
            left = deadline - time.monotonic()
            try:
                self.store.read_into(piece["object"], memoryview(content), timeout=max(0.1, min(CALL_S, left)))
            except (Corrupt, NotFound) as error:
                raise Unusable(str(error), piece["object"]) from error
            if hashlib.sha256(content).hexdigest() != piece["sha256"]:
                raise Unusable(f"{piece['object']} has other content than it was kept with", piece["object"])
            with path.open("r+b") as out:
                out.seek(at)
                out.write(content)

        with ThreadPoolExecutor(FETCHED_AT_ONCE) as readers:
            for _ in readers.map(fetch, wanted):
                pass

    def _keep_patiently(self, key: str, folder: Path) -> None:
        end, told = time.monotonic() + KEEP_S, ""
        while True:
            try:
                if self._keep(key, folder):
                    self.say(f"tokens are kept in {self.store.url}/{TOKENS}{key}: the next VM need not make them")
                return
            except (StoreError, OSError) as error:
                passing = getattr(error, "may_pass", False) and time.monotonic() + PAUSE_S < end
                if not passing:
                    self.say(f"tokens could not be kept, the next VM makes them again: {error}")
                    return
                if str(error) != told:
                    told = str(error)
                    self.say(f"tokens are not kept yet, it is tried again: {error}")
            time.sleep(PAUSE_S)

    def _keep(self, key: str, folder: Path) -> bool:
        """False: they are there."""
        found = self._indexes(key)
        if set(found) - self._bad:
            return False
        number = len(found)
        files = {
            path.relative_to(folder).as_posix(): [self._put(key, number, piece) for piece in _pieces(path)]
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        index = json.dumps({"format": FORMAT, "files": files}, sort_keys=True).encode()
        self.store.create(f"{TOKENS}{key}/index-{number}.json", index, timeout=CALL_S)
        return True

    def _put(self, key: str, number: int, content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        name = f"{TOKENS}{key}/{digest}"
        if name not in self._bad:
            try:
                self.store.create(name, content, timeout=CALL_S)
            except AlreadyExists:
                self._bad.add(name)
        if name in self._bad:
            name = f"{name}-{number}"
            self.store.create(name, content, timeout=CALL_S)
        return {"object": name, "size": len(content), "sha256": digest}


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while content := file.read(PIECE):
            yield content


def _read_index(text: bytes) -> dict[str, list[dict[str, Any]]]:
    """File name to pieces. Raises Unusable: it is of another version, or names files outside its folder."""
    try:
        index = json.loads(text)
        if index["format"] != FORMAT:
            raise Unusable(f"it has format {index['format']}, this code knows {FORMAT}")
        files: dict[str, list[dict[str, Any]]] = index["files"]
        for name, pieces in files.items():
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise Unusable(f"it names {name!r}, which is no file of its folder")
            for piece in pieces:
                piece["object"], piece["size"] = str(piece["object"]), int(piece["size"])
                str(piece["sha256"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unusable(f"it is no index of ours ({error})") from error
    return files
