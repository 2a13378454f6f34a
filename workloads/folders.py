"""Folders: where the trainers keep what is made once on a machine, and which files of one are meant."""

import os
import re
from collections.abc import Sequence
from pathlib import Path


def cache_folder() -> Path:
    """`SPOT_CACHE_DIR`, else a folder in the user's cache."""
    return Path(os.environ.get("SPOT_CACHE_DIR") or Path.home() / ".cache" / "spot-training")


def matches(name: str, patterns: Sequence[str]) -> bool:
    """True when a glob pattern fits the whole name; `**` stands for any number of folders, `*` stays within one."""
    return any(re.fullmatch(_translate(pattern), name) for pattern in patterns)


def _translate(pattern: str) -> str:
    out = []
    for token in re.split(r"(\*\*/|\*\*|\*|\?)", pattern):
        known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
        out.append(known.get(token, re.escape(token)))
    return "".join(out)
