"""Buckets in a folder of this machine, so that they outlive the server: FOLDER/BUCKET/NAME.

The form is that of `agent.store.file`, which reads such a bucket as it is, also while the server writes to it: an
object is a symbolic link to `.objects/GENERATION-SIZE-CRC32C`. Bytes are written aside and made durable first; the link
publishes them, in one step. Whenever server or machine die, an object is whole or absent. What a client said of an
object (its type, its encoding) is in a file beside its bytes, where it said anything.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from infra.local.storage.errors import ApiError, Refused
from infra.local.storage.memory import Data
from infra.local.storage.resources import Object

_CONTENT = ".objects"
_PARTIAL = ".partial"
_ABOUT = ".json"
_NAMED = re.compile(r"([0-9a-f]{24})-(\d+)-([0-9a-f]{8})")
_PLAIN = {"contentType": "application/octet-stream"}
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LONGEST = 255  # bytes of one part of a name, as file systems have it


class Disk:
    """One bucket's folder. Whoever has it is alone: `infra.local.out_folder` sees to that."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._content = root / _CONTENT

    def load(self, bucket: str) -> Iterator[Object]:
        """The objects that are there. What a server that died left half done is cleared away."""
        with _told(self._content):
            self._content.mkdir(parents=True, exist_ok=True)
            known = set()
            for folder, folders, files in os.walk(self._root):
                folders[:] = [each for each in folders if each != _CONTENT]
                for path in (Path(folder, file) for file in files):
                    if path.is_symlink() and (found := _NAMED.fullmatch(path.readlink().name)):
                        known.add(found[0])
                        yield self._object(bucket, path.relative_to(self._root).as_posix(), found)
            for left in self._content.iterdir():
                if left.name.endswith(_PARTIAL) or (
                    _NAMED.fullmatch(left.name.removesuffix(_ABOUT)) and left.name.removesuffix(_ABOUT) not in known
                ):
                    left.unlink()

    def write(self, name: str, data: Data) -> Path:
        """Bring the bytes of `name` to the disk; they are no object yet."""
        parts = name.split("/")
        if any(part in ("", ".", "..", _CONTENT) or len(part.encode()) > _LONGEST for part in parts) or "\0" in name:
            raise Refused(f"A bucket that is kept in a folder can't hold an object of the name {name!r}.")
        partial = self._content / f"{uuid.uuid4().hex}{_PARTIAL}"
        with _told(self._root / name):
            try:
                with partial.open("xb") as file:
                    for view in data.views():
                        file.write(view)
                    file.flush()
                    os.fsync(file.fileno())
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        return partial

    def publish(self, made: Object, partial: Path) -> Object:
        """Make `made` of the bytes in `partial`, in place of what has its name. Returns it, its bytes on the disk."""
        path, content = self._root / made.name, self._bytes_of(made)
        with _told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "its name is that of a folder of others")
            old = path.readlink().name if path.is_symlink() else None
            self.describe(made)
            partial.rename(content)
            aside = self._content / f"{uuid.uuid4().hex}{_PARTIAL}"
            aside.symlink_to(os.path.relpath(content, path.parent))
            aside.rename(path)
            _sync(path.parent)
            if old:
                self._forget(old)
            return replace(made, data=_mapped(content))

    def describe(self, made: Object) -> None:
        """Keep what a client said of it."""
        about = self._content / f"{self._bytes_of(made).name}{_ABOUT}"
        with _told(self._root / made.name):
            if made.metadata == _PLAIN and made.component_count is None:
                about.unlink(missing_ok=True)
                return
            aside = about.with_suffix(_PARTIAL)
            aside.write_text(json.dumps({"metadata": made.metadata, "component_count": made.component_count}))
            aside.rename(about)

    def remove(self, gone: Object) -> None:
        path = self._root / gone.name
        with _told(path):
            path.unlink(missing_ok=True)
            _sync(path.parent)  # the name goes before the content: never a name without content
            self._forget(self._bytes_of(gone).name)

    def _forget(self, content: str) -> None:
        (self._content / content).unlink(missing_ok=True)
        (self._content / f"{content}{_ABOUT}").unlink(missing_ok=True)

    def _bytes_of(self, made: Object) -> Path:
        # A generation of ours is in microseconds; there it begins with nanoseconds, and ends with 20 more bits.
        generation = (made.generation * 1000) << 20
        return self._content / f"{generation:024x}-{made.size}-{made.crc32c:08x}"

    def _object(self, bucket: str, name: str, found: re.Match[str]) -> Object:
        generation = (int(found[1], 16) >> 20) // 1000
        about: dict[str, Any] = {"metadata": _PLAIN, "component_count": None}
        with contextlib.suppress(FileNotFoundError, ValueError):
            about = json.loads((self._content / f"{found[0]}{_ABOUT}").read_text())
        return Object(
            bucket=bucket,
            name=name,
            generation=generation,
            metageneration=1,
            data=_mapped(self._content / found[0]),
            size=int(found[2]),
            crc32c=int(found[3], 16),
            md5=None,
            created=generation / 1e6,
            updated=generation / 1e6,
            **about,
        )


def _mapped(path: Path) -> Data:
    """A file's bytes, which take memory only while they are looked at, and stay when the file is deleted."""
    if not path.stat().st_size:
        return Data()
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    return Data([(mapped, memoryview(mapped))])


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        if error.errno in _FULL:
            raise ApiError(507, f"{path}: {why}. Free space there: what is not stored is tried again.") from None
        raise ApiError(500, f"{path}: {why}. May this user write there?") from None
