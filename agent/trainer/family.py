"""Family: all processes that a trainer's command has started, which of them hear a signal, and what they write.

A program is seldom one process: a shell or a launcher stands in front of it, workers behind it. By default SIGUSR1
ends a process, so that a whole group told at once loses its shell and its workers, and the program with them. Told is
who has said that it can use it: `/proc/PID/status` lists the signals that a process catches.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_WRITES = os.O_WRONLY | os.O_RDWR


@dataclass(frozen=True)
class Member:
    """One process. `above`: those between it and the keeper, nearest first."""

    pid: int
    command: str
    above: tuple[int, ...]


def family_of(keeper: int) -> list[Member]:
    """All that live below `keeper`, parents before their children; the keeper itself is none."""
    members: list[Member] = []
    above: dict[int, tuple[int, ...]] = {keeper: ()}
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(keeper).children(recursive=True):
            with contextlib.suppress(psutil.Error, OSError):
                parent = process.ppid()
                if process.status() == psutil.STATUS_ZOMBIE or parent not in above:
                    continue
                line = above[parent] if parent == keeper else (parent, *above[parent])
                above[process.pid] = line
                members.append(Member(process.pid, "\0".join(process.cmdline()), line))
    return members


def hearers(family: list[Member], number: signal.Signals) -> list[list[Member]]:
    """Who is to be told `number`, in rounds: first the highest that hear it, then, should that come to nothing, those
    of other programs below them. A shell may forward a signal or keep it until its child has ended; a worker that was
    forked has its parent's handlers, and is not meant."""
    by_pid = {member.pid: member for member in family}
    hear = {member.pid for member in family if _hears(member.pid, number)}
    rounds: list[list[Member]] = []
    for member in family:
        if member.pid not in hear:
            continue
        over = [by_pid[pid] for pid in member.above if pid in hear]
        if any(each.command == member.command for each in over):
            continue
        depth = len({each.command for each in over})
        while len(rounds) <= depth:
            rounds.append([])
        rounds[depth].append(member)
    return [each for each in rounds if each]


def _hears(pid: int, number: signal.Signals) -> bool:
    """Whether it catches the signal, or has it blocked for a `signalfd` or another thread's `sigwait`; its own, which
    unblocks what it waits for, shows in what the kernel does for it."""
    masks = {"SigCgt": 0, "SigBlk": 0, "SigIgn": 0}
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            key, _, value = line.partition(":")
            if key in masks:
                masks[key] = int(value, 16)
    bit = 1 << (number - 1)
    if masks["SigIgn"] & bit:
        return False
    if (masks["SigCgt"] | masks["SigBlk"]) & bit:
        return True
    with contextlib.suppress(OSError):
        return "sigtimedwait" in Path(f"/proc/{pid}/wchan").read_text()
    return False


def written_by(family: list[Member], folder: Path) -> set[str]:
    """Files below `folder` that some member has open for writing, relative to it."""
    top = f"{folder.resolve()}/"
    return {path.removeprefix(top) for member in family for path in _written(member.pid, top)}


def _written(pid: int, top: str) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - hundreds of them, many times a second
            with contextlib.suppress(OSError, ValueError):
                path = os.readlink(f"/proc/{pid}/fd/{number}")  # noqa: PTH115
                if path.startswith(top) and _flags(pid, number) & _WRITES:
                    yield path


def _flags(pid: int, number: str) -> int:
    for line in Path(f"/proc/{pid}/fdinfo/{number}").read_text().splitlines():
        if line.startswith("flags:"):
            return int(line.split()[1], 8)
    return 0
