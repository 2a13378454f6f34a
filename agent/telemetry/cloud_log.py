"""Cloud log: the agent's journal in Cloud Logging too, where metrics, alerts and `spot logs --cloud` look for it.

The agent sends its records itself, field by field as journald has them. So no image needs a logging agent of Google's,
and what a window came to is told before the power goes. It never waits for anybody: records queue up, the oldest are
dropped when there are too many, and what can't be sent now is sent later.

`SPOT_LOGGING_URL` redirects it to a local server. Where only the metadata server is a local one (`GCE_METADATA_HOST`),
nothing is sent: that VM's token is not one of Google's.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx2
import structlog

from agent.notices.metadata import MetadataClient, MetadataError, access_token
from agent.store import StoreError
from agent.store.outgoing import outgoing
from agent.telemetry import journal

log = structlog.get_logger()

LOGGING = "https://logging.googleapis.com"
LOG_NAME = "spot-agent"
SEVERITIES = {"2": "CRITICAL", "3": "ERROR", "4": "WARNING", "6": "INFO", "7": "DEBUG"}
"""Cloud Logging's words for journald's PRIORITY."""

_EVERY_S = 1.0
_LONGEST_PAUSE_S = 60.0
_REQUEST_S = 10.0
_CLOSING_S = 1.0
_AGAIN_S = 0.1
_MOST_QUEUED = 10_000
_MOST_WAITING = 4_000_000  # characters in a queue, of which there are two: the agent is to stay small
_MOST_AT_ONCE = 500
_LONGEST_VALUE = 20_000  # characters: an entry may be 256 kB, and what is long is in MESSAGE too
_MOST_CHARACTERS = 2_000_000  # a request may be 10 MB, and a character 4 bytes


class CloudLogError(Exception):
    """Cloud Logging did not take records; the text says why. `hopeless`: it never will take these."""

    def __init__(self, text: str, *, hopeless: bool = False) -> None:
        super().__init__(text)
        self.hopeless = hopeless


def _size(entry: Mapping[str, Any]) -> int:
    """Characters in its fields."""
    return sum(map(len, entry["jsonPayload"].values()))


class _Queue:
    """Entries that wait, the oldest first; bounded in number and in characters."""

    def __init__(self) -> None:
        self.entries: deque[dict[str, Any]] = deque()
        self._characters = 0

    def add(self, entry: dict[str, Any]) -> int:
        """Queue it; returns how many of the oldest had to go for it."""
        self.entries.append(entry)
        self._characters += _size(entry)
        dropped = 0
        while len(self.entries) > 1 and (len(self.entries) > _MOST_QUEUED or self._characters > _MOST_WAITING):
            self.take()
            dropped += 1
        return dropped

    def take(self) -> dict[str, Any]:
        entry = self.entries.popleft()
        self._characters -= _size(entry)
        return entry

    def put_back(self, entry: dict[str, Any]) -> None:
        self.entries.appendleft(entry)
        self._characters += _size(entry)


class CloudLog:
    """Records of one VM. `resource` finds out which, once there is something to send: project_id, zone, instance_id;
    until it knows, records wait. `ask` reads the metadata server."""

    def __init__(
        self,
        ask: Callable[[str], Awaitable[str | None]],
        *,
        resource: Callable[[], Awaitable[Mapping[str, str]]],
        base: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._ask, self._sleep, self._now = ask, sleep, now
        self._url = f"{base.rstrip('/')}/v2/entries:write"
        self._resource = resource
        self._common: dict[str, Any] | None = None
        self._running: asyncio.Task[None] | None = None
        self._http = httpx2.AsyncClient(timeout=_REQUEST_S, transport=outgoing(base))
        self._own, self._output = _Queue(), _Queue()  # a trainer's flood pushes out nothing that the agent says
        self._lock = threading.Lock()
        self._sending = asyncio.Lock()
        self._dropped = 0
        # With its time it makes an entry what it is: sent twice, it is there once.
        self._ids = (f"{uuid.uuid4().hex[:12]}-{number}" for number in itertools.count())

    def add(self, event: Mapping[str, Any]) -> None:
        """Queue a record, from any thread. Never waits, never raises."""
        fields = {name: value[:_LONGEST_VALUE] for name, value in journal.journal_fields(dict(event))}
        with self._lock:
            queue = self._output if fields["SYSLOG_IDENTIFIER"] == journal.TRAINER else self._own
            self._dropped += queue.add(
                {
                    "timestamp": self._now().isoformat(),
                    "severity": SEVERITIES.get(fields["PRIORITY"], "DEFAULT"),
                    "insertId": next(self._ids),
                    "jsonPayload": fields,
                }
            )

    def start(self) -> None:
        """Send what comes, from now on, until `close`."""
        self._running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        pause, away_since = _EVERY_S, None
        while True:
            await self._sleep(pause)
            try:
                await self.flush()
            except CloudLogError as error:
                if away_since is None:
                    away_since = time.monotonic()
                    log.warning("cloud_log_away", reason=str(error))
                pause = min(_LONGEST_PAUSE_S, 2 * pause) * random.uniform(0.7, 1.0)  # noqa: S311 - jitter, no secret
            else:
                if away_since is not None:
                    log.info("cloud_log_back", seconds=round(time.monotonic() - away_since, 1))
                pause, away_since = _EVERY_S, None

    async def flush(self) -> None:
        """Send all that is queued. Raises CloudLogError; what was not taken stays queued, unless it never will be."""
        async with self._sending:
            while entries := self._take():
                try:
                    await self._write(entries)
                except BaseException as error:
                    if not (isinstance(error, CloudLogError) and error.hopeless):
                        with self._lock:
                            for entry in reversed(entries):
                                trainers = entry["jsonPayload"]["SYSLOG_IDENTIFIER"] == journal.TRAINER
                                (self._output if trainers else self._own).put_back(entry)
                    raise

    async def send_last(self, timeout: float) -> None:
        """Send what is left, if that can be done in `timeout` seconds: the process may end next."""
        await self._finish(timeout)
        self.start()

    async def close(self) -> None:
        """Send what is left, and hang up."""
        await self._finish(_CLOSING_S)
        await self._http.aclose()

    async def _finish(self, timeout: float) -> None:
        """Send what is left, asked again until `timeout` seconds are over."""
        if self._running:  # it may be pausing, or in a request that hangs: what it has not sent is queued again
            self._running.cancel()
            await asyncio.wait({self._running})
            self._running = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        return await self.flush()
                    except CloudLogError:
                        await self._sleep(_AGAIN_S)

    def _take(self) -> list[dict[str, Any]]:
        """The oldest entries, as many as fit into a request."""
        taken: list[dict[str, Any]] = []
        size = 0
        with self._lock:
            while len(taken) < _MOST_AT_ONCE and (queue := self._own if self._own.entries else self._output).entries:
                size += _size(queue.entries[0])
                if taken and size > _MOST_CHARACTERS:
                    break
                taken.append(queue.take())
            if taken and self._dropped:
                taken[0]["jsonPayload"]["DROPPED"] = str(self._dropped)
                self._dropped = 0
        return taken

    async def _write(self, entries: list[dict[str, Any]]) -> None:
        try:
            if self._common is None:
                labels = dict(await self._resource())
                self._common = {
                    "logName": f"projects/{labels['project_id']}/logs/{LOG_NAME}",
                    "resource": {"type": "gce_instance", "labels": labels},
                    "partialSuccess": True,
                }
            token = await access_token(self._ask)
            answer = await self._http.post(
                self._url, json=self._common | {"entries": entries}, headers={"Authorization": f"Bearer {token}"}
            )
        except MetadataError as error:
            raise CloudLogError(f"no identity or no token from the metadata server ({error})") from error
        except httpx2.HTTPError as error:
            raise CloudLogError(f"{self._url}: {type(error).__name__}") from None
        if answer.status_code != 200:
            said = " ".join(answer.text[:300].split())
            with contextlib.suppress(ValueError, KeyError, TypeError):
                said = json.loads(answer.text)["error"]["message"]
            raise CloudLogError(f"HTTP {answer.status_code}: {said}", hopeless=answer.status_code in (400, 413))


def address() -> str | None:
    """Where records are sent to; None where there is no Cloud Logging."""
    if base := os.environ.get("SPOT_LOGGING_URL"):
        return base
    return None if os.environ.get("GCE_METADATA_HOST") else LOGGING


async def this_vm(metadata: MetadataClient) -> Mapping[str, str]:
    """What Cloud Logging calls this VM. Raises MetadataError."""
    machine, project = await metadata.machine(), await metadata.get("project/project-id")
    return {"project_id": project or "", "zone": machine.zone, "instance_id": machine.instance_id}


@contextlib.asynccontextmanager
async def cloud_log(metadata: MetadataClient) -> AsyncIterator[CloudLog | None]:
    """All that is logged inside the block goes to Cloud Logging as well, where there is one: else it is None. What is
    said while the metadata server is away is sent once it answers."""
    base = address()
    if base is None:
        yield None
        return
    try:
        sender = CloudLog(metadata.get, resource=partial(this_vm, metadata), base=base)
    except StoreError as error:
        log.warning("cloud_log_away", reason=str(error))
        yield None
        return
    with journal.also(sender.add):
        sender.start()
        try:
            yield sender
        finally:
            await sender.close()
