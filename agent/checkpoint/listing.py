"""Listing: what is in a program's folder, and where its bytes are in a checkpoint.

A folder's checkpoint is one row of bytes in parts, like any other: the extents of its files, and behind them the
listing itself, so that the manifest stays small however many files there are. Small files share a part. A part may be
an earlier checkpoint's; what is left in it of files that changed since is not listed.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from crc32c import crc32c

from agent.checkpoint.manifest import Manifest, ManifestError, Part
from agent.store import Corrupt, Store

Kind = Literal["file", "folder", "link", "hard"]
LISTING = "listing"
"""In a checkpoint's `state`: where its list of files is, and how long."""
UNKNOWN = -1
"""The time of what format 1 did not know it of."""
TOP = "."
"""The path of the folder itself."""


class FolderEntry(NamedTuple):
    """One thing in the folder; `path` is relative to it, bytes that are no UTF-8 as in `os.fsdecode`. `hard` is one
    more name of a file."""

    path: str
    kind: Kind
    mode: int
    size: int = 0
    mtime_ns: int = 0
    uid: int = -1
    gid: int = -1
    target: str = ""
    """Where a link leads, relative to its own place; of `hard`, the path of the name that came first."""
    ctime_ns: int = 0
    inode: tuple[int, int] = (0, 0)
    """Device and number: with size and times what tells on this disk that a file was not written to."""
    loose: bool = False
    """Written to all the time, as a log is: carried along as it is, whatever that moment is."""

    @property
    def identity(self) -> tuple[int, int, int, tuple[int, int]]:
        return self.size, self.mtime_ns, self.ctime_ns, self.inode


class Extent(NamedTuple):
    """Bytes [at, at + size) of the checkpoint are a file's from `start` on. Between its extents a file is empty."""

    at: int
    size: int
    start: int


@dataclass(frozen=True)
class Listing:
    """`extents` by the path of their file."""

    entries: list[FolderEntry]
    extents: dict[str, list[Extent]] = field(default_factory=dict)

    def pack(self) -> bytes:
        """As it stands in the checkpoint, behind the files' bytes."""
        columns: dict[str, Any] = {
            name: [getattr(entry, name) for entry in self.entries]
            for name in ("path", "kind", "mode", "size", "mtime_ns", "uid", "gid")
        }
        columns["target"] = {entry.path: entry.target for entry in self.entries if entry.target}
        columns["extents"] = {
            path: [(each.at, each.size, each.start) for each in extents] for path, extents in self.extents.items()
        }
        return zlib.compress(json.dumps(columns, separators=(",", ":")).encode(), 1)

    @classmethod
    def unpack(cls, packed: bytes, *, where: str) -> Listing:
        """Raises ManifestError."""
        try:
            columns = json.loads(zlib.decompress(packed))
            named = ("path", "kind", "mode", "size", "mtime_ns", "uid", "gid")
            targets = columns["target"]
            entries = [
                FolderEntry(path, kind, mode, size, mtime_ns, uid, gid, targets.get(path, ""))
                for path, kind, mode, size, mtime_ns, uid, gid in zip(*(columns[name] for name in named), strict=True)
            ]
            extents = {path: [Extent(*each) for each in found] for path, found in columns["extents"].items()}
        except (ValueError, KeyError, TypeError, zlib.error) as error:
            raise ManifestError(f"{where}: no list of a folder ({error!r})") from error
        return cls(entries, extents)


def read_listing(store: Store, manifest: Manifest, *, timeout: float) -> Listing:
    """What the checkpoint has of a folder.

    Raises:
        ManifestError: it is not a folder's, or its list is not one.
        Corrupt, NotFound: a part of the list is not what the manifest says.
    """
    if manifest.layout != "folder":
        raise ManifestError(f"the checkpoint of step {manifest.step} holds a session's tensors, no folder")
    where = f"the checkpoint of step {manifest.step}"
    if "files" in manifest.state:
        return _first_format(manifest.state["files"], where)
    try:
        at, size = manifest.state[LISTING]
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestError(f"{where}: it does not say where its list of files is") from error
    packed = bytearray()
    for part in sorted(manifest.ranks[0].parts, key=lambda part: part.offset):
        if at <= part.offset < at + size:
            packed += read_part(store, part, timeout=timeout)
    return Listing.unpack(bytes(packed), where=where)


def read_part(store: Store, part: Part, *, timeout: float) -> bytes:
    """The object, verified. Raises Corrupt, NotFound."""
    content = store.read(part.name, timeout=timeout)
    if (len(content), crc := int(crc32c(content))) != (part.size, part.crc32c):
        raise Corrupt(f"{part.name}: {len(content)} bytes, crc32c {crc:08x}; the manifest says {part.crc32c:08x}")
    return content


def _first_format(files: Any, where: str) -> Listing:
    """Manifests of format 1 hold the list themselves."""
    entries: list[FolderEntry] = []
    extents: dict[str, list[Extent]] = {}
    try:
        for each in files:
            path, kind, size = each["path"], each.get("kind", "file"), each.get("size", 0)
            entries.append(FolderEntry(path, kind, each["mode"], size, UNKNOWN, target=each.get("target", "")))
            if size:
                extents[path] = [Extent(each["offset"], size, 0)]
    except (KeyError, TypeError, AttributeError) as error:
        raise ManifestError(f"{where}: no list of a folder ({error!r})") from error
    return Listing(entries, extents)
