"""Scratch: a folder on a disk, for what may be large. Below /run all is memory, and of that the arenas take theirs."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

_MEMORY = frozenset({"tmpfs", "ramfs"})


def result_folder(run_id: str, fallback: Path) -> Path:
    """An empty folder for the run's result; what an earlier, interrupted try left in it is removed.

    On the first disk of SPOT_SCRATCH (the VM's own), XDG_CACHE_HOME, the temporary folder and the working directory
    that can be written; in `fallback` where all of them are memory.
    """
    places = [os.environ.get("SPOT_SCRATCH"), os.environ.get("XDG_CACHE_HOME"), tempfile.gettempdir(), "."]
    for place in filter(None, places):
        folder = Path(place).absolute() / f"spot-result-{run_id}"
        if is_memory(Path(place)):
            continue
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        except OSError:
            continue
        return folder
    folder = fallback / f"spot-result-{run_id}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def is_memory(path: Path, mounts: Path = Path("/proc/self/mounts")) -> bool:
    """Whether `path` lies in a file system that is memory. False where that can't be told."""
    here = path.resolve()
    try:
        lines = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return False
    mounted = [(line[1].replace("\\040", " "), line[2]) for line in lines]
    around = [(place, kind) for place, kind in mounted if here.is_relative_to(place)]
    return bool(around) and max(around, key=lambda mount: len(mount[0]))[1] in _MEMORY
