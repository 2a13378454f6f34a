"""Where records and pictures are: a folder, or a bucket. Both give the same names, bytes and checksums."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from crc32c import crc32c

from agent.store import NotFound, Store, StoreError, open_store
from workloads.pictures.batch import DataError
from workloads.pictures.patience import Patience

_LIST_TIMEOUT_S = 600.0
_WHOLE_TIMEOUT_S = 600.0
_CHUNK = 8 << 20


class Gone(DataError):
    """A file that a record names is not there."""


@dataclass(frozen=True)
class Entry:
    """A file that is there."""

    size: int
    stamp: str
    """Another one when the content is another one, on this machine."""


class Place(Protocol):
    """Files by name, which are relative paths with `/`."""

    @property
    def url(self) -> str:
        """As in the run file."""

    def entries(self) -> dict[str, Entry]:
        """All files. Raises DataError."""

    def checksum(self, name: str, entry: Entry) -> int:
        """The CRC32C of a file. Raises DataError."""

    def read(self, name: str, start: int | None = None, size: int = 0) -> bytes:
        """A whole file, or `size` bytes of it from `start` on. Raises DataError; Gone: it is not there."""

    def chunks(self, name: str, entry: Entry) -> Iterator[bytes]:
        """A whole file, a piece at a time. Raises DataError."""


def open_place(url: str, patience: Patience | None = None) -> Place:
    """The folder or `gs://` bucket that `url` names."""
    patience = patience or Patience()
    return BucketPlace(url, patience) if url.startswith("gs://") else FolderPlace(url, patience)


@dataclass(frozen=True)
class FolderPlace:
    """Files below a folder; hidden ones are left out."""

    url: str
    patience: Patience

    def entries(self) -> dict[str, Entry]:
        if not Path(self.url).is_dir():
            raise DataError(f"data.source {self.url} is not a folder: correct it, or write gs://... or hf://...")
        found, left = {}, [(self.url, "")]
        while left:
            folder, prefix = left.pop()
            with os.scandir(folder) as inside:
                for entry in inside:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        left.append((entry.path, f"{prefix}{entry.name}/"))
                    elif entry.is_file():
                        status = entry.stat()
                        stamp = f"{status.st_size} {status.st_mtime_ns}"
                        found[f"{prefix}{entry.name}"] = Entry(status.st_size, stamp)
        return found

    def checksum(self, name: str, entry: Entry) -> int:
        crc = 0
        for chunk in self.chunks(name, entry):
            crc = crc32c(chunk, crc)
        return crc

    def read(self, name: str, start: int | None = None, size: int = 0) -> bytes:
        path = Path(self.url, name)

        def once(_: float) -> bytes:
            with path.open("rb") as file:
                return file.read() if start is None else os.pread(file.fileno(), size, start)

        try:
            return self.patience.read(once)
        except FileNotFoundError:
            raise Gone(f"{path} is not there") from None
        except OSError as error:
            raise DataError(f"can't read {path}: {error.strerror}") from error

    def chunks(self, name: str, entry: Entry) -> Iterator[bytes]:
        for start in range(0, entry.size, _CHUNK):
            yield self.read(name, start, min(_CHUNK, entry.size - start))


class BucketPlace:
    """Objects below a prefix of a bucket. Each process opens connections of its own."""

    def __init__(self, url: str, patience: Patience) -> None:
        self.url, self.patience = url, patience
        self._opened: tuple[int, Store] | None = None

    def __getstate__(self) -> dict[str, object]:
        return vars(self) | {"_opened": None}

    @property
    def _store(self) -> Store:
        if self._opened is None or self._opened[0] != os.getpid():  # a fork must not speak on its parent's connections
            self._opened = (os.getpid(), open_store(self.url))
        return self._opened[1]

    def entries(self) -> dict[str, Entry]:
        try:
            objects = self._store.list(timeout=_LIST_TIMEOUT_S)
        except StoreError as error:
            raise DataError(f"can't list data.source {self.url}: {error}") from error
        return {found.name: Entry(found.size, f"{found.crc32c:08x}") for found in objects}

    def checksum(self, name: str, entry: Entry) -> int:
        return int(entry.stamp, 16)

    def read(self, name: str, start: int | None = None, size: int = 0) -> bytes:
        store = self._store
        try:
            if start is None:
                return self.patience.read(lambda left: store.read(name, timeout=left))
            return self.patience.read(lambda left: store.read_range(name, start, size, timeout=left))
        except NotFound:
            raise Gone(f"{self.url}/{name} is not there") from None
        except StoreError as error:
            raise DataError(f"can't read {self.url}/{name}: {error}") from error

    def chunks(self, name: str, entry: Entry) -> Iterator[bytes]:
        for start in range(0, entry.size, _CHUNK):
            yield self.read(name, start, min(_CHUNK, entry.size - start))
