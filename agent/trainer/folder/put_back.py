"""Put back: a committed folder, as it was."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from agent.trainer.folder.scan import LOST_FOUND, FolderError

_ASIDE = ".restoring"


def write_folder(view: memoryview, files: list[dict[str, Any]], folder: Path) -> None:
    """Put a committed folder back, aside first and then renamed; a mount point, which can't be, entry by entry.

    Raises:
        FolderError: the manifest names a path outside the folder, or bytes it does not have, or the disk refuses.
    """
    folder = folder.resolve()  # a link to a larger disk stays one
    aside = folder / _ASIDE if folder.is_mount() else folder.with_name(folder.name + _ASIDE)
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        for file in files:
            target = aside / file["path"]
            if not target.resolve().is_relative_to(aside):
                raise FolderError(f"the checkpoint names a file outside its folder: {file['path']!r}")
            target.parent.mkdir(parents=True, exist_ok=True)
            match file.get("kind", "file"):
                case "folder":
                    target.mkdir()
                case "link":
                    target.symlink_to(file["target"])
                    if not target.resolve().is_relative_to(aside):
                        raise FolderError(f"the checkpoint has a link that leads outside its folder: {file['path']!r}")
                case _:
                    content = view[file["offset"] : file["offset"] + file["size"]]
                    if len(content) != file["size"]:
                        raise FolderError(f"the checkpoint is too short for {file['path']!r}")
                    with target.open("xb") as out:
                        out.write(content)
                    target.chmod(file["mode"] & 0o777)
        if folder.is_mount():
            _refill(folder, aside)
        elif folder.exists():
            old = folder.with_name(folder.name + ".replaced")
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
            aside.rename(folder)
            shutil.rmtree(old)
        else:
            folder.parent.mkdir(parents=True, exist_ok=True)
            aside.rename(folder)
        for file in reversed(files):  # a folder that may not be written could neither have been filled nor moved
            if file.get("kind") == "folder":
                (folder / file["path"]).chmod(file["mode"] & 0o777)
    except OSError as error:
        raise FolderError(f"the checkpoint can't be put back into {folder}: {error}") from error


def _refill(folder: Path, aside: Path) -> None:
    """Replace all that is in `folder` by what is in `aside`. Cut short, the next restore does it again."""
    for entry in folder.iterdir():
        if entry.name in (_ASIDE, LOST_FOUND):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    for entry in aside.iterdir():
        entry.rename(folder / entry.name)
    aside.rmdir()
