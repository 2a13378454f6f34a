"""A real store, with a look at every operation and a hand on it."""

from __future__ import annotations

import builtins
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from agent.store import Buffer, Store, StoredObject, StoreError

T = TypeVar("T")
Hook = Callable[[str, str], None]


def nothing(operation: str, name: str) -> None:
    """The hook that changes nothing."""


@dataclass
class Watched:
    """Passes everything on to `store`. `before` and `after` see the operation and the name; raising ends it."""

    store: Store
    before: Hook = nothing
    after: Hook = nothing
    operations: list[tuple[str, str]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.url = self.store.url

    def names(self, prefix: str = "") -> set[str]:
        return {entry.name for entry in self.store.list(prefix, timeout=10.0)}

    def create(self, name: str, data: Buffer, *, timeout: float) -> StoredObject:
        return self._do("create", name, lambda: self.store.create(name, data, timeout=timeout))

    def replace(self, name: str, data: Buffer, *, timeout: float) -> StoredObject:
        return self._do("replace", name, lambda: self.store.replace(name, data, timeout=timeout))

    def read(self, name: str, *, timeout: float) -> bytes:
        return self._do("read", name, lambda: self.store.read(name, timeout=timeout))

    def read_into(self, name: str, into: memoryview, *, timeout: float) -> int:
        return self._do("read", name, lambda: self.store.read_into(name, into, timeout=timeout))

    def read_range(self, name: str, start: int, size: int, *, timeout: float) -> bytes:
        return self._do("read", name, lambda: self.store.read_range(name, start, size, timeout=timeout))

    def folders(self, prefix: str = "", *, timeout: float) -> builtins.list[str]:
        return self._do("folders", prefix, lambda: self.store.folders(prefix, timeout=timeout))

    def list(self, prefix: str = "", *, timeout: float, limit: int | None = None) -> builtins.list[StoredObject]:
        return self._do("list", prefix, lambda: self.store.list(prefix, timeout=timeout, limit=limit))

    def copy(self, source: str, target: str, *, timeout: float) -> StoredObject:
        return self._do("copy", target, lambda: self.store.copy(source, target, timeout=timeout))

    def compose(self, name: str, sources: Sequence[str], *, size: int, crc32c: int, timeout: float) -> StoredObject:
        join = partial(self.store.compose, name, sources, size=size, crc32c=crc32c, timeout=timeout)
        return self._do("compose", name, join)

    def delete(self, name: str, *, timeout: float) -> None:
        self._do("delete", name, lambda: self.store.delete(name, timeout=timeout))

    def delete_many(self, names: Iterable[str], *, timeout: float) -> dict[str, StoreError]:
        """Each name is its own operation to the hooks, before and after it goes, whatever the store does at once."""
        stayed: dict[str, StoreError] = {}
        for name in names:
            stayed |= self._do("delete", name, partial(self.store.delete_many, [name], timeout=timeout))
        return stayed

    def check(self, *, timeout: float) -> None:
        self._do("check", "", lambda: self.store.check(timeout=timeout))

    def warm(self, connections: int, *, timeout: float) -> None:
        self._do("warm", "", lambda: self.store.warm(connections, timeout=timeout))

    def _do(self, operation: str, name: str, call: Callable[[], T]) -> T:
        self.before(operation, name)
        with self._lock:
            self.operations.append((operation, name))
        result = call()
        self.after(operation, name)
        return result
