"""Trackers: who tells W&B and TensorBoard what is committed, in processes of their own beside the agent.

They read the bucket and nothing else, so that whatever becomes of them stops no training and loses nothing. They yield
to all: they are the first that a full machine ends, have what time the trainer leaves, and are gone in a window.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import structlog

from agent.config import RunConfig
from agent.config.units import format_seconds
from agent.vm.systemd import trainer_environment

log = structlog.get_logger()

_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 300.0
_LAST_TIMEOUT_S = 30.0
_UNFIT = 3  # infra.operate.track.command: what it takes is not on this VM
_YIELDING = 'echo 800 >/proc/self/oom_score_adj; exec nice -n 10 "$@"'


def commands(run: RunConfig, url: str, folder: Path) -> Mapping[str, list[str]]:
    """The command of each tracker that `run` asks for. `url` of its objects; `folder` for what is not sent yet."""
    tracking, found = run.tracking, dict[str, list[str]]()
    if tracking is None:
        return found
    spot = [sys.executable, "-P", "-m", "infra.start", "track", url, "--watch", "--every", f"{tracking.every:g}"]
    if tracking.wandb and not run.sends_itself:
        entity = ["--entity", tracking.wandb.entity] if tracking.wandb.entity else []
        found["wandb"] = [
            *spot, "--to", "wandb", "--project", tracking.wandb.project, *entity, "--dir", str(folder / "wandb")
        ]  # fmt: skip
    if tracking.tensorboard:
        found["tensorboard"] = [*spot, "--to", "tensorboard", "--in-bucket", tracking.tensorboard.folder]
    return found


class Trackers:
    """Those of one run. `window`: once it is set they are ended."""

    def __init__(self, asked: Mapping[str, list[str]], window: asyncio.Event) -> None:
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._tasks = [asyncio.create_task(self._keep(name, command)) for name, command in asked.items()]
        self._window = asyncio.create_task(self._end_with(window))

    async def last(self) -> None:
        """The run is complete: they end by themselves once all of it is told. What is not by then stays in the bucket,
        for `spot track`."""
        if not self._tasks:
            return
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGUSR1)  # look now
        _, late = await asyncio.wait(self._tasks, timeout=_LAST_TIMEOUT_S)
        if late:
            log.warning(
                "tracker_away", tracker="", error=f"not all was told within {format_seconds(_LAST_TIMEOUT_S)} of the "
                "run's end: spot track tells the rest, from the bucket"
            )  # fmt: skip

    async def close(self) -> None:
        for task in (self._window, *self._tasks):
            task.cancel()
        await asyncio.gather(self._window, *self._tasks, return_exceptions=True)

    async def _end_with(self, window: asyncio.Event) -> None:
        await window.wait()
        for task in self._tasks:
            task.cancel()

    async def _keep(self, name: str, command: list[str]) -> None:
        pause = _PAUSE_S
        while True:
            try:
                status = await self._told(name, command)
            except OSError as error:  # no memory for a process, say
                log.warning("tracker_away", tracker=name, error=str(error))
                status = 1
            if status in (0, _UNFIT):
                return
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE_S, 2 * pause)

    async def _told(self, name: str, command: list[str]) -> int:
        """Run it to its end; what it complains of is in the journal."""
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", _YIELDING, "sh", *command, env=trainer_environment(os.environ), start_new_session=True,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._processes[name] = process
        try:
            assert process.stderr is not None
            said = ""
            async for line in _lines(process.stderr):
                if line != said:
                    log.warning("tracker_away", tracker=name, error=line)
                said = line
            return await process.wait()
        finally:
            del self._processes[name]
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what its client has started


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # longer than a line should be
            continue
        if not line:
            return
        if text := line.decode(errors="replace").strip():
            yield text[:1000]
