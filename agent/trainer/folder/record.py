"""Record: which checkpoints a program's folder goes on from. It lies beside the folder, on the same disk.

Without it nobody could tell after a crash whether the folder is newer than what the bucket has, or older.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from agent.trainer.folder.scan import OURS

log = structlog.get_logger()


@dataclass(frozen=True)
class Mark:
    """A checkpoint, committed or on its way, and the digest of the folder as it holds it."""

    step: int
    attempt: int
    digest: str


@dataclass(frozen=True)
class Record:
    """`of`: what the folder was when it was last restored or committed, and each save since that may be committed too.
    `boot`: who wrote this, one boot of one VM."""

    store: str
    run_id: str
    boot: str
    of: list[Mark] = field(default_factory=list)
    failing: bool = False
    """Restored since the program fails from each state: until it has saved, what it leaves there is worth nothing."""

    def begun(self, mark: Mark) -> Record:
        return replace(self, of=[*self.of, mark], failing=False)

    def committed(self, step: int, attempt: int) -> Record:
        """It is a checkpoint: what came before it does not count any more."""
        at = next((at for at, mark in enumerate(self.of) if (mark.step, mark.attempt) == (step, attempt)), 0)
        return replace(self, of=self.of[at:])

    def find(self, step: int, attempt: int) -> Mark | None:
        return next((mark for mark in self.of if (mark.step, mark.attempt) == (step, attempt)), None)

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        try:
            values = json.loads(_path(folder).read_text())
            return cls(
                values["store"],
                values["run_id"],
                values["boot"],
                [Mark(**mark) for mark in values["of"]],
                bool(values["failing"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, folder: Path) -> None:
        """Replaces the one before. Where that can't be, a later agent takes the folder for one that it does not know,
        and puts it aside rather than going on from it."""
        path = _path(folder)
        new = path.with_name(f"{path.name}.new")
        values = vars(self) | {"of": [vars(mark) for mark in self.of]}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with new.open("w") as out:
                json.dump(values, out)
                out.flush()
                os.fsync(out.fileno())
            new.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):  # an old one would tell a wrong tale
                path.unlink(missing_ok=True)
            log.warning("folder_not_noted", folder=str(folder), error=str(error))


def _path(folder: Path) -> Path:
    top = folder.resolve()
    return top / f"{OURS}folder.json" if top.is_mount() else top.with_name(f".{top.name}.spot.json")
