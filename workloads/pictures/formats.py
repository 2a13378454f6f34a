"""Files of records: JSON lines beside pictures, and WebDataset's tar shards with both inside."""

from __future__ import annotations

import io
import json
import posixpath
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, islice
from typing import Any

from crc32c import crc32c

from workloads.pictures.batch import LACKING, DataError, Image, Sample
from workloads.pictures.places import Entry, Place
from workloads.pictures.records import Record, lines, parse

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
_AT_ONCE = 256
_READERS = 8


def read_file(place: Place, name: str, entries: dict[str, Entry], *, may_lack: bool) -> Iterator[Sample]:
    """The samples of one file, in its order; pictures are looked at for their checksums alone. `may_lack`: one that is
    not there is found out when it is read.

    Raises:
        DataError: it can't be read, or a record is none.
    """
    if name.endswith(".tar"):
        yield from _shard(place, name, entries[name])
    elif name.endswith((".jsonl", ".json")):
        yield from _beside(place, name, entries, may_lack=may_lack)
    else:
        raise DataError(f"{name} is no file of records: name .jsonl, .json or .tar files in data.records")


def _beside(place: Place, name: str, entries: dict[str, Entry], *, may_lack: bool) -> Iterator[Sample]:
    """Pictures are named relative to the file's folder."""
    folder = posixpath.dirname(name)

    def look(picture: str, key: str) -> Image:
        file = posixpath.normpath(posixpath.join(folder, picture))
        entry = entries.get(file)
        if entry is None and may_lack:
            return Image(file, LACKING, 0)
        if entry is None:
            raise DataError(f"{key} names the picture {picture!r}, and there is no {file} in {place.url}")
        return Image(file, entry.size, place.checksum(file, entry))

    def looked(given: tuple[str, Record]) -> Sample:
        key, record = given
        if not all(isinstance(picture, str) for picture in record.images):
            raise DataError(f"{key}: a picture is no name of a file")
        return Sample(key, tuple(look(picture, key) for picture in record.images), record.turns, record.facts)

    records = ((key, parse(key, value)) for key, value in lines(name, place.read(name)))
    with ThreadPoolExecutor(_READERS) as readers:
        while some := list(islice(records, _AT_ONCE)):
            yield from readers.map(looked, some)


def _shard(place: Place, name: str, entry: Entry) -> Iterator[Sample]:
    """Members with the same name up to the first dot of its last part make a sample, as WebDataset says."""
    for stem, group in groupby(_members(place, name, entry), lambda member: _stem(member[0])):
        images, value = [], None
        for member, start, content in group:
            ending = member[len(stem) :].lower()
            if ending.endswith(PICTURES):
                images.append(Image(name, len(content), crc32c(content), start, member))
            elif ending.endswith(".json"):
                value = _json(f"{name}/{member}", content)
            elif ending.endswith((".txt", ".text", ".caption")):
                value = {"question": "", "answer": _utf8(f"{name}/{member}", content).strip()}
        key = f"{name}/{stem}"
        if value is None:
            raise DataError(f"{key} has neither a .json nor a .txt beside its pictures: there is nothing to learn")
        record = parse(key, value)
        yield Sample(key, tuple(images), record.turns, record.facts)


def _members(place: Place, name: str, entry: Entry) -> Iterator[tuple[str, int, bytes]]:
    """Name, place and content of each file of a shard, which is read through once."""
    try:
        with tarfile.open(fileobj=io.BufferedReader(_Stream(place.chunks(name, entry))), mode="r|") as shard:
            for member in shard:
                if member.isfile() and (file := shard.extractfile(member)) is not None:
                    yield member.name, member.offset_data, file.read()
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{name} is no tar file, or is cut off: {error}; compressed shards have no places") from error


class _Stream(io.RawIOBase):
    """Chunks as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


def _stem(member: str) -> str:
    folder, _, base = member.rpartition("/")
    return posixpath.join(folder, base.partition(".")[0])


def _json(name: str, content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise DataError(f"{name} is no JSON: {error}") from None


def _utf8(name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 text (byte {error.start})") from None


def read_texts(place: Place, name: str, entries: dict[str, Entry]) -> Iterator[str]:
    """All questions and answers of one file; no picture beside it is looked at. Raises DataError."""
    if name.endswith(".tar"):
        turns = (sample.turns for sample in _shard(place, name, entries[name]))
    else:
        turns = (parse(key, value).turns for key, value in lines(name, place.read(name)))
    for each in turns:
        for turn in each:
            yield from turn
