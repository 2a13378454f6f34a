"""Border: where a run of several machines goes from one to the next. Crossed once, whoever is there to do it.

What is known of it is in the bucket: the last checkpoint of the stages before, the line's entry of the border, and the
claim of the next machine's first VM, which ends the crossing. Whatever VM is taken away in between, the next one of
its group finds what is done and does the rest.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from agent.checkpoint.borders import place_of
from agent.checkpoint.line import UNTIL, LineEntry
from agent.config.causes import Cause
from agent.config.legs import Leg
from agent.run.patience import patiently
from agent.trainer.endings import VmUnfit
from agent.trainer.host import Host
from agent.vm.group import GroupError, NextGroup

log = structlog.get_logger()

_CALL_TIMEOUT_S = 30.0
_COMMIT_TIMEOUT_S = 600.0
_GROUP_PATIENCE_S = 900.0  # a grant spreads in 2 to 7 minutes or more
_BORDER_PATIENCE_S = 600.0  # stages that have not begun: somebody may have started both groups by hand
_PAUSE_S = (1.0, 15.0)


class NotHandedOver(Exception):
    """The next stages' group can't be started; the text says why, and what to do."""


async def at_border(host: Host, next_group: Callable[[], Awaitable[NextGroup]] | None) -> Cause | None:
    """None where this VM's stages are to be trained; else how its work ends, once all that has to be done is done.

    Raises NotHandedOver and VmUnfit where it can't be, StoreError and NewerFormatError as the bucket does.
    """
    if (leg := host.leg) is None:
        return None
    await _commit_what_is_staged(host, leg)
    begun = host.clock()
    pause, longest = _PAUSE_S
    while True:
        place = place_of(await patiently(partial(_newest, host), host.clock), leg)
        if place == "here":
            return None
        if place == "behind":
            await _cross(host, leg, next_group)
            return "stage_complete"
        left = begun + _BORDER_PATIENCE_S - host.clock()
        log.warning("border_awaited", stage=leg.names, step=leg.start, left_s=round(left))
        if left <= pause:
            return "stage_not_begun"
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
        pause = min(longest, 2 * pause)


async def _newest(host: Host) -> LineEntry | None:
    return await asyncio.to_thread(host.saver.checkpoints.line.newest, timeout=_CALL_TIMEOUT_S)


async def _commit_what_is_staged(host: Host, leg: Leg) -> None:
    """A trainer that has staged the border's state, and ended, leaves it in memory: it is to be in the bucket first."""
    saver = host.saver
    snapshot = saver.slots.newest()
    if leg.last or snapshot is None or not snapshot[1].step >= leg.end > saver.committed_step:
        return
    await saver.drain_again(snapshot[1])
    if not await saver.wait_committed(step=leg.end, timeout=_COMMIT_TIMEOUT_S):
        raise VmUnfit(f"step {leg.end}, the last of {leg.title}, could not be stored: see save_failed")


async def _cross(host: Host, leg: Leg, next_group: Callable[[], Awaitable[NextGroup]] | None) -> None:
    line = host.saver.checkpoints.line
    facts = {"vm": host.ledger.vm, UNTIL: str(leg.end)}
    cross = partial(asyncio.to_thread, line.cross, until=leg.end, facts=facts, timeout=_CALL_TIMEOUT_S)
    over = await patiently(cross, host.clock)
    log.info("border", stage=leg.names, step=leg.end, over=over)
    if not over:
        await _start(host, leg, next_group)


async def _start(host: Host, leg: Leg, next_group: Callable[[], Awaitable[NextGroup]] | None) -> None:
    if next_group is None:
        raise NotHandedOver(f"{leg.title} are complete, and this VM is of no group that another one follows")
    begun = host.clock()
    pause, longest = _PAUSE_S
    while True:
        try:
            group = await next_group()
            await group.start()
            return
        except GroupError as error:
            waited = host.clock() - begun
            if waited + pause > _GROUP_PATIENCE_S:
                why = f"{leg.title} are complete, and the next group could not be started for {waited / 60:.0f} min: "
                if error.passing:
                    raise VmUnfit(f"{why}{error}") from error
                raise NotHandedOver(f"{why}{error}. Once it can be, `spot start` goes on there") from error
            log.warning("next_group_waits", error=str(error), left_s=round(_GROUP_PATIENCE_S - waited))
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
        pause = min(longest, 2 * pause)
