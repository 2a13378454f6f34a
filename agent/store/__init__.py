"""Where checkpoints live: `open_store("gs://bucket/prefix")` or `open_store("file:///folder")`.

Both keep the same promises: an object appears whole or not at all, `create` never overwrites, and what is
read is verified against the checksum taken when it was written.

>>> store = open_store("file:///tmp/checkpoints")
>>> store.create("runs/demo/part-0", b"weights", timeout=10).size
7
"""

from __future__ import annotations

from agent.store.base import (
    COMPOSED_AT_ONCE,
    AlreadyExists,
    Buffer,
    Corrupt,
    Forbidden,
    Held,
    NotFound,
    Refused,
    Store,
    StoredObject,
    StoreError,
    Unavailable,
)

__all__ = [
    "COMPOSED_AT_ONCE",
    "AlreadyExists",
    "Buffer",
    "Corrupt",
    "Forbidden",
    "Held",
    "NotFound",
    "Refused",
    "Store",
    "StoreError",
    "StoredObject",
    "Unavailable",
    "open_store",
]


def open_store(url: str) -> Store:
    """Return the store that `url` names. Touches neither network nor disk: `Store.check` does."""
    if url.startswith("gs://"):
        from agent.store.gcs import GcsStore  # noqa: PLC0415 - a file:// run needs none of it

        return GcsStore(url)
    if url.startswith("file:///"):
        from agent.store.file import FileStore  # noqa: PLC0415

        return FileStore(url)
    raise StoreError(f"cannot open {url!r}: use gs://BUCKET/PREFIX or file:///FOLDER (three slashes)")
