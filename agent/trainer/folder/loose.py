"""Loose: what programs write to all the time beside their saves. It holds no save up, and is carried along as it is."""

from __future__ import annotations

from fnmatch import fnmatchcase

_NAMES = ("events.out.tfevents*", "*.log", "*.log.*", "*.jsonl", "*.csv", "*.out", "*.err")
_FOLDERS = frozenset(("wandb", "runs", "mlruns", "tensorboard", "tb_logs", "__pycache__", "logs"))


def is_loose(path: str) -> bool:
    """Whether it is a log, an event file, or in a tracker's folder."""
    *folders, name = path.split("/")
    return any(fnmatchcase(name, each) for each in _NAMES) or not _FOLDERS.isdisjoint(folders)
