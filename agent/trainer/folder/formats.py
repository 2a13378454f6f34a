"""Formats: files that say themselves whether they are whole, for their last bytes are written last.

`torch.save` writes a ZIP archive, whose directory stands at its end; safetensors tells at its beginning how long it is.
"""

from __future__ import annotations

import json
from pathlib import Path

_ZIP, _ZIP_END = b"PK\x03\x04", b"PK\x05\x06"
_ZIP_TAIL = 22 + 65_535  # the end record and the longest comment
_LONGEST_HEADER = 100 << 20
_SAFETENSORS = ".safetensors"
_KNOWN = (_SAFETENSORS, ".pt", ".pth", ".ckpt", ".bin", ".zip", ".npz", ".tar", ".model")


def is_torn(path: Path) -> str:
    """Why the file is not whole, in words; empty where it is, or where nobody can know."""
    if not path.name.endswith(_KNOWN):
        return ""
    try:
        with path.open("rb") as file:
            head = file.read(8)
            size = file.seek(0, 2)
            if head.startswith(_ZIP):
                file.seek(max(0, size - _ZIP_TAIL))
                return "" if _ends_an_archive(file.read()) else "its archive has no end"
            if path.name.endswith(_SAFETENSORS):
                return _torn_safetensors(path, head, size)
    except OSError:  # it is gone, or nobody's to read: the copy will say so
        return ""
    return ""


def _ends_an_archive(tail: bytes) -> bool:
    at = tail.rfind(_ZIP_END)
    return at >= 0 and at + 22 + int.from_bytes(tail[at + 20 : at + 22], "little") == len(tail)


def _torn_safetensors(path: Path, head: bytes, size: int) -> str:
    length = int.from_bytes(head, "little")
    if len(head) < 8 or length > _LONGEST_HEADER or size < 8 + length:
        return "it ends within its header"
    try:
        with path.open("rb") as file:
            file.seek(8)
            header = json.loads(file.read(length))
        ends = [each["data_offsets"][1] for key, each in header.items() if key != "__metadata__"]
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        return "its header can't be read"
    missing = 8 + length + max(ends, default=0) - size
    return f"{missing} bytes of it are missing" if missing > 0 else ""
