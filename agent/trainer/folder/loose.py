"""Loose: what programs write to all the time beside their saves. It holds no save up, and is carried along as it is."""

from __future__ import annotations

import re
from fnmatch import translate
from functools import lru_cache

_NAMES = ("events.out.tfevents*", "*.log", "*.log.*", "*.jsonl", "*.csv", "*.out", "*.err")
_FOLDERS = frozenset(("wandb", "runs", "mlruns", "tensorboard", "tb_logs", "__pycache__", "logs"))

_NAME = re.compile("|".join(map(translate, _NAMES)), re.DOTALL)


def is_loose(path: str) -> bool:
    """Whether it is a log, an event file, or in a tracker's folder."""
    folder, _, name = path.rpartition("/")
    return _in_one(folder) or _NAME.match(name) is not None


@lru_cache(maxsize=4096)
def _in_one(folder: str) -> bool:
    return not _FOLDERS.isdisjoint(folder.split("/"))
