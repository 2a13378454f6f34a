"""Settled: when what a program saves is whole, how long that is waited for, and who is told that it is time.

The window is used up to where the bytes would no longer get into the bucket. It ends earlier only where it is known
that nothing more is to come: the program has ended, or has saved since it was told, or nobody in it can be told.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from agent.checkpoint.listing import TOP, FolderEntry
from agent.trainer.family import Member, family_of, hearers, written_by
from agent.trainer.folder.inotify import Changes
from agent.trainer.folder.rules import Save
from agent.trainer.folder.said import Said
from agent.trainer.folder.scan import scan_folder
from agent.trainer.folder.whole import STILL_S, Judge, Judged, sign
from agent.trainer.process import Trainer

log = structlog.get_logger()

_LOOK_EVERY_S = 0.1  # at most; and no more than a quarter of the time where a look takes long
_LOOK_ANYWAY_S = 0.5
_NEXT_ROUND_S = 2.0  # a shell that heard it forwards it at once, or keeps it until its child has ended


class Settling:
    """Watches one folder of one program."""

    def __init__(self, folder: Path, said: Said, pattern: str | None, process: Trainer) -> None:
        self.folder = folder
        self.said = said
        self._process = process
        self._judge = Judge(folder, said, pattern)
        self._said_now = asyncio.Event()
        self._words = 0
        self._looking = asyncio.Lock()

    async def look(self) -> Judged:
        """What there is now."""
        async with self._looking:
            return await asyncio.to_thread(self._look)

    def _look(self) -> Judged:
        ended = not self._process.running
        written = set() if ended else written_by(family_of(self._process.pid), self.folder)
        entries = scan_folder(self.folder)
        return self._judge.look(entries, written, now=time.monotonic(), wall_ns=time.time_ns(), ended=ended)

    async def say(self, path: str, step: int | None, cwd: str = "") -> Save:
        """The program says that `path` is whole. Raises ValueError where that is not in its folder."""
        top, leads_to = os.path.realpath(self.folder), os.path.realpath(self.folder / path)
        if cwd and not os.path.exists(leads_to):
            leads_to = os.path.realpath(os.path.join(cwd, path))
        if leads_to != top and not leads_to.startswith(f"{top}/"):
            raise ValueError(f"{path} is not in {self.folder}, which is the run file's checkpoint_dir")
        name = "" if leads_to == top else os.path.relpath(leads_to, top)
        entries: list[FolderEntry] = await asyncio.to_thread(scan_folder, self.folder)
        if not any(Save(name, None).holds(entry.path) and entry.kind != "folder" for entry in entries):
            raise ValueError(f"there is no file in {self.folder / name}")
        self.said.say(name, entries, step)
        self._words += 1
        self._said_now.set()
        return Save(name, True)

    def tell(self, number: signal.Signals) -> list[list[Member]]:
        """Tell the program that it is time to save: those of the first round. All rounds are returned; none, where
        nobody hears it."""
        rounds = hearers(family_of(self._process.pid), number)
        if rounds:
            log.info("notice_passed_on", signal=number.name, pids=[one.pid for one in rounds[0]])
            self._told = number
            self._send(rounds[0])
        return rounds

    def _send(self, members: list[Member]) -> None:
        for member in members:
            try:
                os.kill(member.pid, self._told)
            except ProcessLookupError:
                continue

    async def until_whole(self, *, until: Callable[[Judged], float]) -> Judged:
        """Until nothing is being written any more, or the program has ended, or `until`, monotonic seconds."""
        return await self._wait(lambda judged: not judged.writing, until)

    async def until_saved(
        self, before: Judged, rounds: list[list[Member]], *, until: Callable[[Judged], float]
    ) -> Judged:
        """The same for a program that was told to save when there was `before`: until it has, says so, or can no
        longer."""
        told_at, words = time.monotonic(), self._words
        waiting = list(rounds[1:])
        was = {entry.path: sign(entry) for entry in before.entries}

        def saved(judged: Judged) -> bool:
            touched = judged.writing or any(was.get(path) != now for path, now in judged.signs.items())
            if waiting and not touched and time.monotonic() - told_at > _NEXT_ROUND_S:
                self._send(waiting.pop(0))
            if judged.writing:
                return False
            if self._words > words:  # also of what it had saved before: it waits for us, and writes nothing meanwhile
                return True
            # What was half then is no answer: the program was at it before it was told.
            fresh = (path for path, now in judged.state.items() if was.get(path) != now and not before.is_half(path))
            if any(judged.is_file(path) for path in fresh):
                return True
            return not waiting and time.monotonic() - told_at > STILL_S and not _alive(rounds)

        return await self._wait(saved, until)

    async def _wait(self, enough: Callable[[Judged], bool], until: Callable[[Judged], float]) -> Judged:
        changes = Changes(self.folder)
        try:
            while True:
                begun = time.monotonic()
                ended = not self._process.running
                judged = await self.look()
                now = time.monotonic()
                if ended or enough(judged) or now >= until(judged):
                    return judged
                changes.watch([each.path for each in judged.entries if each.kind == "folder"] or [TOP])
                await asyncio.sleep(max(_LOOK_EVERY_S, 3 * (now - begun)))
                rest = min(_LOOK_ANYWAY_S, STILL_S / 4 if judged.writing else _LOOK_ANYWAY_S, until(judged) - now)
                await self._something(changes, max(0.0, rest))
        finally:
            changes.close()

    async def _something(self, changes: Changes, timeout: float) -> None:
        """Until the folder changes, the program ends, or speaks."""
        waits: set[asyncio.Future[object]] = {
            asyncio.ensure_future(changes.wait(timeout)),
            asyncio.ensure_future(asyncio.shield(self._process.ended)),
            asyncio.ensure_future(self._said_now.wait()),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED, timeout=timeout)
        finally:
            self._said_now.clear()
            for task in waits:
                task.cancel()


def _alive(rounds: list[list[Member]]) -> bool:
    """Whether somebody who was told still runs."""
    for member in (each for one in rounds for each in one):
        try:
            os.kill(member.pid, 0)
        except ProcessLookupError:
            continue
        return True
    return False
