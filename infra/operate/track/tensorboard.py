"""TensorBoard's event files, written without TensorBoard: one for each commit, named by its place in the line.

What is in one is a function of the bucket: to write it again changes nothing, and who was interrupted goes on.
A file is a row of records, each with its length and masked CRC32Cs; a record is one `Event` in protobuf's wire format.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Iterator

from crc32c import crc32c

from infra.operate.track.stream import Batch, Cursor, Row

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MASK = 0xA282EAD8
_NAME = re.compile(r"events\.out\.tfevents\.(\d{10})\.(\d{12})\.(\d{5})")


def file_of(batch: Batch) -> tuple[str, bytes]:
    """Name and content of the event file of a batch. Names sort as steps do: TensorBoard reads them in that order."""
    at = batch.cursor
    name = f"events.out.tfevents.{at.sequence:010d}.{at.step:012d}.{at.attempt:05d}"
    return name, b"".join(_record(event) for event in _events(batch.rows))


def cursor_of(name: str) -> Cursor | None:
    """Where the reader was that wrote the file of this name; None where it is no event file of ours."""
    found = _NAME.fullmatch(name)
    return Cursor(*map(int, found.groups())) if found else None


def _events(rows: Iterable[Row]) -> Iterator[bytes]:
    first = True
    for row in rows:
        if first:
            yield _double(1, row.time) + _field(3, b"brain.Event:2")
            first = False
        values = b"".join(
            _field(1, _field(1, name.encode()) + _key(2, _FIXED32) + struct.pack("<f", _single(float(value))))
            for name, value in row.values.items()
            if isinstance(value, int | float)
        )
        yield _double(1, row.time) + _key(2, _VARINT) + _varint(row.step) + _field(5, values)


def _single(value: float) -> float:
    """As a float of 32 bits can have it."""
    if math.isfinite(value) and abs(value) > 3.4028234e38:
        return math.copysign(math.inf, value)
    return value


def _record(event: bytes) -> bytes:
    length = struct.pack("<Q", len(event))
    return length + struct.pack("<I", _masked(length)) + event + struct.pack("<I", _masked(event))


def _masked(data: bytes) -> int:
    crc: int = crc32c(data)
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def _key(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _double(number: int, value: float) -> bytes:
    return _key(number, _FIXED64) + struct.pack("<d", value)


def _field(number: int, content: bytes) -> bytes:
    return _key(number, _BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
