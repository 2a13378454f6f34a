"""What the agent watches while a trainer runs: notices, hangs, newer attempts of the run."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING

import structlog

from agent.checkpoint.line import superseded_by
from agent.run import emergency
from agent.run.window import Window
from agent.store import StoreError
from agent.telemetry.ledger import Incident
from agent.trainer.restarts import Cause
from agent.vm.systemd import notify

if TYPE_CHECKING:
    from agent.run.daemon import Agent

log = structlog.get_logger()

_FENCE_EVERY_S = 30.0
_WATCH_EVERY_S = 1.0
_WARM_EVERY_S = 60.0
_WARM_CONNECTIONS = 8


async def watch_notices(agent: Agent) -> None:
    """The first notice that ends this VM opens the window; later ones are recorded."""
    while True:
        notice = await agent.notices.next()
        agent.health.count_notice(notice.cause)
        log.warning("notice", source=notice.source, cause=notice.cause, detail=notice.detail)
        if notice.source in emergency.SHUTDOWN_SOURCES:  # not at a notice of 120 s: systemd would count from it
            notify(stopping=1)
        if notice.source == "maintenance":
            agent.spawn(agent.save_now())  # hours or a minute ahead: save, and go on until the VM is told to stop
        elif agent.window_open:
            emergency.note_later(agent, notice)
        else:
            agent.window_open = True
            agent.spawn(_close_window(agent, *emergency.open_window(agent, notice)))


async def _close_window(agent: Agent, window: Window, incident: Incident) -> None:
    cause: Cause = "operator_stop"
    try:
        cause = await emergency.use_window(agent, window, incident)
    finally:
        if not agent.window_closed.done():
            agent.window_closed.set_result(cause)


async def watch_trainer(agent: Agent) -> None:
    """Hangs and newer attempts. A trainer that is alive but makes no progress for `hang_timeout` is hung."""
    fenced_at = agent.clock()
    warmed_at = fenced_at - _WARM_EVERY_S
    while True:
        await asyncio.sleep(_WATCH_EVERY_S)
        now = agent.clock()
        if agent.folder_link:  # a program without heartbeats: it can't be told apart from a hung one
            agent.last_beat = now
            if agent.link and not agent.window_open and agent.periodic.due():
                agent.spawn(agent.save_now())
        if (
            agent.trainer
            and agent.trainer.running
            and now - agent.last_beat > agent.run_config.supervision.hang_timeout
        ):
            agent.hung.set()
        if now - warmed_at > _WARM_EVERY_S:
            warmed_at = now
            with contextlib.suppress(StoreError):  # token and connections: a save in a hurry need not wait for them
                await asyncio.to_thread(agent.store.warm, _WARM_CONNECTIONS, timeout=10.0)
        if agent.saver.attempt and now - fenced_at > _FENCE_EVERY_S:
            fenced_at = now
            with contextlib.suppress(StoreError):
                saver = agent.saver
                ask = partial(superseded_by, agent.store, saver.attempt, claimant=saver.claimant, timeout=10.0)
                if await asyncio.to_thread(ask):
                    agent.superseded.set()
