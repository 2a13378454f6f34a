"""What a store is: its operations, what they return and the errors they raise."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

COMPOSED_AT_ONCE = 32
"""Objects that `Store.compose` joins at once."""


class StoreError(Exception):
    """A store operation failed. What `may_pass` is worth trying again for as long as there is time."""

    may_pass = False
    """Whether the same call could succeed a while later, with nothing changed by us."""


class NotFound(StoreError):
    """The object, or the bucket, does not exist."""


class AlreadyExists(StoreError):
    """The name is taken by an object with other content; nothing was changed."""


class Forbidden(StoreError):
    """The identity lacks a permission. The message names it. A grant takes minutes to spread, so it may pass."""

    may_pass = True


class Refused(StoreError):
    """The server answered with a status that is neither success nor a plain no. Its front does so in passing."""

    may_pass = True


class Held(StoreError):
    """A hold or a retention policy keeps the object as it is."""


class Corrupt(StoreError):
    """Bytes and checksum do not belong together, or the object is longer or shorter than it should be."""


class Unavailable(StoreError):
    """The store did not answer in time, however often it was asked."""

    may_pass = True


@dataclass(frozen=True)
class StoredObject:
    """An object as the store reports it."""

    name: str
    """Relative to the store's url."""
    size: int
    """Bytes."""
    crc32c: int
    """CRC32C (Castagnoli) of the whole content, as an unsigned 32-bit number."""
    generation: int
    """Changes with every write of the name."""
    updated: float
    """Unix time in seconds."""


class Store(Protocol):
    """Objects under one url. Synchronous and thread-safe: call it from worker threads.

    `timeout` is the whole call's deadline in seconds, its retries included; a call past it raises
    `Unavailable`. Names are relative to `url`, with `/` between their parts.
    """

    url: str

    def create(self, name: str, data: Buffer, *, timeout: float) -> StoredObject:
        """Store `data` under a name that is free. Durable and verified (size, CRC32C) when it returns.

        An object with the same size and CRC32C that is there already is success: it is what an earlier,
        interrupted try of ours left. Any other raises `AlreadyExists`.
        """
        ...

    def replace(self, name: str, data: Buffer, *, timeout: float) -> StoredObject:
        """Store `data` under a name, taken or not. Readers see the old or the new content, never a mixture."""
        ...

    def read(self, name: str, *, timeout: float) -> bytes:
        """Return the whole content, verified against the CRC32C kept with it."""
        ...

    def read_range(self, name: str, start: int, size: int, *, timeout: float) -> bytes:
        """Return `size` bytes from `start` on. No checksum is kept of a part: whoever asks holds it against his own.

        An object that ends before raises `Corrupt`.
        """
        ...

    def read_into(self, name: str, into: memoryview, *, timeout: float) -> int:
        """Fill `into` with the whole content, verify it and return its CRC32C.

        An object that is not exactly as long as `into` raises `Corrupt`. After any error the content of
        `into` is undefined.
        """
        ...

    def folders(self, prefix: str = "", *, timeout: float) -> builtins.list[str]:
        """Return the folders directly below `prefix`, which is empty or ends in '/', sorted.

        Each is a whole name relative to `url`, ends in '/' and holds at least one object. The objects are not listed:
        this costs as much as there are folders.
        """
        ...

    def list(self, prefix: str = "", *, timeout: float, limit: int | None = None) -> builtins.list[StoredObject]:
        """Return the objects whose name starts with `prefix`, sorted by name: the first `limit` of them, or all."""
        ...

    def copy(self, source: str, target: str, *, timeout: float) -> StoredObject:
        """Copy within the store, without the bytes passing through here; create-only like `create`."""
        ...

    def compose(self, name: str, sources: Sequence[str], *, size: int, crc32c: int, timeout: float) -> StoredObject:
        """Join `sources`, at most COMPOSED_AT_ONCE, in order; their bytes don't pass through here. Create-only.

        `size` and `crc32c` are those that it must have: what has others raises `Corrupt`, or `AlreadyExists` where it
        was there before. A source that is missing raises `NotFound`.
        """
        ...

    def delete(self, name: str, *, timeout: float) -> None:
        """Remove an object. One that is missing is fine."""
        ...

    def delete_many(self, names: Iterable[str], *, timeout: float) -> dict[str, StoreError]:
        """Remove all that can be removed, many at a time; missing ones are fine. Return what stayed, and why.

        An object under a hold or a retention policy stays with `Held`, what there was no time for with `Unavailable`.
        """
        ...

    def check(self, *, timeout: float) -> None:
        """Raise what stands in the way of using the store, with what to do about it."""
        ...

    def warm(self, connections: int, *, timeout: float) -> None:
        """Do ahead what an upload in a hurry would wait for: fetch a fresh token, open `connections`.

        Cheap when all is ready; call it now and then while there is time.
        """
        ...


def check_name(name: str) -> str:
    """Return `name`, or raise `StoreError` if no store could keep it."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in name or "\n" in name or "\r" in name:
        raise StoreError(f"not an object name: {name!r}; use parts joined by '/', none empty, '.' or '..'")
    return name
