"""The folder in which `spot run` keeps a run on this machine: `bucket` outlives the command, `vms` are its VMs' disks.

One command at a time has it. Nothing in it is deleted but what was on the disks of VMs that are gone; their logs stay.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TextIO

import psutil

from infra.local.vm import processes_on

_MARK = "spot-run.json"
_EARLIER = {"vms", "bucket"}  # what an earlier version left, without the mark
_DISK = re.compile(r".*-boot(\d+)")
_WHOLE_DISKS = 2  # of the newest VMs; of those before their logs are kept
_KILL_S = 5.0


class CannotRun(Exception):
    """This machine can't train the run; the text says why, and what to do."""


@dataclass(frozen=True)
class OutFolder:
    """It is this command's alone, as long as `opened` lasts."""

    path: Path
    run_id: str

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path, run_id: str, *, fresh: bool = False) -> Iterator[OutFolder]:
        """Make the folder, or take what is there; `fresh`: what is there is moved aside. Raises CannotRun."""
        with contextlib.ExitStack() as stack:
            with _written(path):
                if fresh and path.is_dir() and any(path.iterdir()):
                    with _locked(path, run_id):
                        move_aside(path)
                stack.enter_context(_locked(path, run_id))
                with tempfile.TemporaryFile(dir=path):
                    pass
            folder = cls(path, run_id)
            folder.switch_off_what_is_left()
            folder.sweep()
            yield folder

    @property
    def bucket(self) -> Path:
        return self.path / "bucket"

    @property
    def vms(self) -> Path:
        return self.path / "vms"

    def disks(self) -> list[tuple[int, Path]]:
        """The disks of all VMs there were, by their number."""
        found = self.vms.iterdir() if self.vms.is_dir() else ()
        return sorted((int(match[1]), disk) for disk in found if (match := _DISK.fullmatch(disk.name)))

    @property
    def booted(self) -> int:
        """How many VMs there were."""
        return max((number for number, _ in self.disks()), default=0)

    def switch_off_what_is_left(self) -> None:
        """A command that was killed leaves its VM running: nothing saves what that trains."""
        left = processes_on(self.vms.resolve())
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, _KILL_S)

    def sweep(self) -> None:
        """The disk of a VM that is gone is gone, as in the cloud: its logs are kept, and the newest ones whole."""
        for _, disk in self.disks()[:-_WHOLE_DISKS]:
            for path in disk.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                elif path.suffix not in (".log", ".jsonl"):
                    path.unlink(missing_ok=True)


@contextlib.contextmanager
def alone_in(path: Path, run_id: str) -> Iterator[None]:
    """Be the only command with a folder that is not this one's own. Raises CannotRun."""
    with _written(path):
        path.mkdir(parents=True, exist_ok=True)
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotRun(
                f"run {run_id} is going in {path} already, by another command: nothing was started\n"
                "    fix: stop that one first, or give this one another run_id"
            ) from None
        except OSError:  # a file server that locks no folders: the line in the bucket lets only one go on
            pass
        yield
    finally:
        os.close(folder)


@contextlib.contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise CannotRun(
            f"{path} can't be written: {why}\n    fix: name another folder with --out, or free space there"
        ) from None


def emptied(path: Path, *, mark: str) -> None:
    """An empty folder for `mark`, which may empty what it has made before, and nothing else. Raises CannotRun."""
    with _written(path):
        there = [each.name for each in path.iterdir()] if path.exists() else []
        if there and mark not in there:
            raise CannotRun(
                f"{path} holds {sorted(there)[0]}, and would be emptied\n"
                "    fix: name another folder with --out, or move this one away"
            )
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True, exist_ok=True)
        (path / mark).touch()


def move_aside(path: Path) -> None:
    """To a name beside it, which says when; nothing is deleted."""
    stamp = datetime.now().astimezone().strftime("%Y%m%dT%H%M%S")
    path.rename(path.with_name(f"{path.name}-before-{stamp}"))


@contextlib.contextmanager
def _locked(path: Path, run_id: str) -> Iterator[None]:
    """Be the only command in the folder. The lock goes with this process, however it ends."""
    path.mkdir(parents=True, exist_ok=True)
    others = {each.name for each in path.iterdir()}
    if _MARK not in others and others:
        what = sorted(others - _EARLIER or others)[0]
        raise CannotRun(
            f"{path} holds {what}, which this version's `spot run` has not made: nothing in it is touched\n"
            "    fix: name another folder with --out, or move this one away"
        )
    with (path / _MARK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            theirs = _read(file)
            raise CannotRun(
                f"run {theirs.get('run_id', run_id)} is going in {path} already, as process {theirs.get('pid', '?')}: "
                "nothing was started\n"
                f"    fix: see how far it is with `spot status`, or stop it first: kill -INT {theirs.get('pid', 'PID')}"
            ) from None
        theirs = _read(file)
        if theirs.get("run_id", run_id) != run_id:
            raise CannotRun(
                f"{path} is the folder of run {theirs['run_id']}, not of {run_id}\n    fix: name another one with --out"
            )
        file.truncate(0)
        json.dump({"run_id": run_id, "pid": os.getpid()}, file)
        file.flush()
        yield


def _read(file: TextIO) -> dict[str, str]:
    file.seek(0)
    with contextlib.suppress(ValueError):
        return dict(json.load(file))
    return {}
