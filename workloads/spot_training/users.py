"""Users: which code is the user's own, where its loop is, and where that sets its names."""

from __future__ import annotations

import contextlib
import dis
import os
import sys
import sysconfig
from pathlib import Path
from types import FrameType
from typing import Any

OURS = str(Path(__file__).parent)
_LIBRARIES = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})


def is_users(file: str) -> bool:
    """Whether a file is the user's own: neither a library's nor ours."""
    return not (file.startswith(("<", OURS, *_LIBRARIES)) or "site-packages" in file)


def place(frame: FrameType) -> str:
    """FILE:LINE, as short as it can be understood."""
    return f"{short(frame.f_code.co_filename)}:{frame.f_lineno}"


def short(file: str) -> str:
    """A file's name as it is seen from here; whole where here is gone."""
    with contextlib.suppress(OSError):
        return os.path.relpath(file)
    return file


def loop_frame() -> FrameType | None:
    """The user's own code that called us, through whatever libraries."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not is_users(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def stored_at(frame: FrameType) -> dict[str, Any]:
    """Where the loop is, and the line where each name of its code is set: in the loop where it is, else before it."""
    lines: dict[str, int] = {}
    for instruction in dis.get_instructions(frame.f_code):
        line = (instruction.positions and instruction.positions.lineno) or 0
        if instruction.opname.startswith("STORE_") and isinstance(instruction.argval, str):
            name = f".{instruction.argval}" if instruction.opname == "STORE_ATTR" else instruction.argval
            known = lines.get(name)
            if known is None or (known < frame.f_lineno <= line):
                lines[name] = line
    return {
        "file": short(frame.f_code.co_filename),
        "function": frame.f_code.co_name,
        "line": frame.f_lineno,
        "stored": lines,
    }
