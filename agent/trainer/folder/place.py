"""Place: where a folder's next content is made, and what becomes of the one before."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import structlog

from agent.trainer.folder.scan import LOST_FOUND, OURS

log = structlog.get_logger()

OLD = ".put-aside-"
_KEPT_ASIDE = 2
_ASIDE = "restoring"
_REPLACED = "replaced"


class Place:
    """The folder, and where its next content is made: beside it; in it, where it is a disk of its own."""

    def __init__(self, folder: Path) -> None:
        self.top = folder.resolve()  # a link to a larger disk stays one
        self.disk = self.top.is_mount()
        self.aside = self._named(_ASIDE)
        self._replaced = self._named(_REPLACED)

    def _named(self, what: str) -> Path:
        return self.top / f"{OURS}{what}" if self.disk else self.top.with_name(f"{self.top.name}.{what}")

    def clear(self) -> None:
        """What an agent left here that was killed amid this."""
        for litter in (self.aside, self._replaced):
            shutil.rmtree(litter, ignore_errors=True)
        self.aside.mkdir(parents=True)

    def exchange(self, *, news: bool) -> None:
        old = self._replaced
        if news:
            name = f"{OLD}{datetime.now(UTC).strftime('%Y%m%dT%H%M%S.%f')[:-3]}Z"
            old = self.top / f"{OURS}{name[1:]}" if self.disk else self.top.with_name(f"{self.top.name}{name}")
        if self.disk:
            self._refill(old)
        else:
            if self.top.exists():
                self.top.rename(old)
            self.aside.rename(self.top)
        if news:
            log.warning("folder_put_aside", folder=str(self.top), to=str(old))
            self._bound()
        else:
            shutil.rmtree(old, ignore_errors=True)

    def _refill(self, old: Path) -> None:
        """Cut short, the next restore does it again: what is aside is new, what is in `old` is not lost."""
        old.mkdir(exist_ok=True)
        for entry in list(self.top.iterdir()):
            if entry.name != LOST_FOUND and not entry.name.startswith(OURS):
                _move(entry, old / entry.name)
        for entry in self.aside.iterdir():
            _move(entry, self.top / entry.name)
        self.aside.rmdir()

    def _bound(self) -> None:
        beside = self.top if self.disk else self.top.parent
        prefix = f"{OURS}{OLD[1:]}" if self.disk else f"{self.top.name}{OLD}"
        for old in sorted(path for path in beside.iterdir() if path.name.startswith(prefix))[:-_KEPT_ASIDE]:
            log.warning("put_aside_removed", folder=str(old), kept=_KEPT_ASIDE)
            shutil.rmtree(old, ignore_errors=True)


def _move(path: Path, to: Path) -> None:
    """Also a folder that may not be written to, whose `..` this changes."""
    mode = path.lstat().st_mode & 0o7777
    if path.is_symlink() or not path.is_dir() or mode & 0o200:
        path.rename(to)
        return
    path.chmod(mode | 0o200)
    path.rename(to)
    to.chmod(mode)
