"""Asking: a program's save is asked for, waited for, and taken.

`take` holds what was judged whole and has it sent; it raises FolderError where that changed meanwhile, and then what
there is now is judged again, for as long as there is time.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable

import structlog
from spot_training.protocol.arena import ArenaError
from spot_training.protocol.messages import SaveAnswer, SaveReason

from agent.checkpoint.saver import Saver
from agent.trainer.family import hearers
from agent.trainer.folder.scan import FolderError
from agent.trainer.folder.settled import Settling
from agent.trainer.folder.whole import Judged, Sign, sign
from agent.trainer.process import Trainer

log = structlog.get_logger()

Take = Callable[[Judged, SaveReason], Awaitable[SaveAnswer]]
_SPARE_S = 1.5  # for the commit, and for the program to be stopped
_RATE = 50e6  # bytes a second, before a large save was seen
_LARGE = 8_000_000
_FIRST = 0.25  # of the time that is left: what is whole at the notice goes first where it takes no more
_AGAIN_S = 0.1
_TRIES = 3


class Asking:
    """`number`: the signal that tells the program to save."""

    def __init__(self, settling: Settling, process: Trainer, saver: Saver, number: signal.Signals, take: Take) -> None:
        self._settling = settling
        self._process = process
        self._saver = saver
        self._signal = number
        self._take = take
        self._taken: dict[str, Sign] = {}
        self.why_none = ""

    def forget(self) -> None:
        """What was taken last did not get into the bucket."""
        self._taken = {}

    async def save(self, reason: SaveReason, *, timeout: float, hold: bool) -> SaveAnswer:
        """`hold`: the program is to be told, for it is stopped next."""
        end = time.monotonic() + timeout
        if not hold or not self._process.running:
            return await self._settled(reason, end)
        before = await self._settling.look()
        answer: SaveAnswer = "unchanged"
        if before.whole and self._seconds(before) < _FIRST * self._left(end):  # what is whole goes first
            answer = await self._try(before, reason)
        rounds = self._settling.tell(self._signal)
        answers: list[SaveAnswer] = [answer]
        if not rounds:  # a save that is under way first: SIGTERM, which it is to get anyhow, may end it
            answers.append(await self._settled(reason, end))
            before = await self._settling.look()
            rounds = self._settling.tell(signal.SIGTERM)
            hears = "SIGTERM" if rounds else "none"
            log.warning("notice_unheard", signal=self._signal.name, at="notice", hears=hears)
        if rounds:
            judged = await self._settling.until_saved(before, rounds, until=lambda now: self.until(now, end))
            answers.append(await self._insist(judged, reason, end))
        return "staged" if "staged" in answers else "unchanged" if before.whole else answers[-1]

    async def _settled(self, reason: SaveReason, end: float) -> SaveAnswer:
        judged = await self._settling.until_whole(until=lambda now: self.until(now, end))
        return await self._insist(judged, reason, end)

    async def _insist(self, judged: Judged, reason: SaveReason, end: float) -> SaveAnswer:
        """Take it; where it changed meanwhile, what there is then: a few times, and in a window for as long as it is
        open."""
        tries = 0
        while (answer := await self._try(judged, reason)) == "none" and judged.whole:
            tries += 1
            late = time.monotonic() + _AGAIN_S > self.until(judged, end)
            if late or (tries >= _TRIES and not self._saver.urgent_deadline):
                log.error("folder_not_saved", folder=str(self._settling.folder), error=self.why_none)
                break
            await asyncio.sleep(_AGAIN_S)
            judged = await self._settling.until_whole(until=lambda now: self.until(now, end))
        return answer

    async def _try(self, judged: Judged, reason: SaveReason) -> SaveAnswer:
        if not judged.whole:
            if not judged.half and not judged.unsettled:
                return "unchanged"  # there is nothing: an empty folder
            self.why_none = _why(judged)
            log.warning("folder_not_whole", folder=str(self._settling.folder), why=self.why_none)
            return "none"
        if judged.state == self._taken:
            return "unchanged"
        try:
            answer = await self._take(judged, reason)
        except (FolderError, ArenaError, OSError) as error:
            self.why_none = f"{self._settling.folder} could not be saved: {error}"
            return "none"
        self._taken = judged.state
        return answer

    def until(self, judged: Judged, end: float) -> float:
        """When to take what there is, so that it gets into the bucket still."""
        deadline = self._saver.urgent_deadline
        return min(end, deadline or end) - _SPARE_S - (self._seconds(judged) if deadline else 0.0)

    def _left(self, end: float) -> float:
        return min(end, self._saver.urgent_deadline or end) - time.monotonic()

    def _seconds(self, judged: Judged) -> float:
        """How long it takes to send what was not taken yet, half as it may be."""
        new = sum(
            entry.size
            for entry in judged.entries
            if entry.kind == "file" and self._taken.get(entry.path) != sign(entry)
        )
        last = self._saver.last_commit
        if last is None or last.size < _LARGE:
            return new / _RATE
        return new * max(0.01, last.committed_at - last.staged_at) / last.size

    @property
    def signal_name(self) -> str:
        return self._signal.name

    def is_heard(self) -> bool:
        """Whether somebody in the program hears the signal."""
        return bool(hearers(self._process.family, self._signal))

    def deaf_to(self) -> str | None:
        """None where somebody in the program hears the signal; else what is heard instead, in words."""
        family = self._process.family
        if not family or hearers(family, self._signal):
            return None
        return "SIGTERM" if hearers(family, signal.SIGTERM) else "none"


def _why(judged: Judged) -> str:
    whys = judged.half | dict.fromkeys(judged.unsettled, "it did not stand still")
    named = [f"{path or 'the folder'}: {why}" for path, why in list(whys.items())[:3]]
    more = len(whys) - len(named)
    return "; ".join(named) + (f"; and {more} more" if more > 0 else "")
