"""The metadata server: is there one, what does it say of this VM, and the watch for its notices.

Rests on the project's facts about it: the flavor header both ways, one long poll a key with `last_etag`, 503 spells of
under a second. Nothing here sleeps while a notice could wait for it, except the retry's 0.1 to 0.5 s.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx2
import structlog

from agent.config.causes import Cause
from agent.notices import Notices, Source

ADDRESS = "169.254.169.254"  # not the name: off GCE, resolving that can hang for 20 s
TOKEN_PATH = "instance/service-accounts/default/token"  # noqa: S105 - where it is, not what it is
FLAVOR = {"Metadata-Flavor": "Google"}
PRODUCT_NAME = Path("/sys/class/dmi/id/product_name")
POLL_S = 15
"""Seconds until the server answers a long poll anyway: how long a connection that died silently can hide a notice."""
POLL_GRACE_S = 5.0

log = structlog.get_logger()


class MetadataError(Exception):
    """The metadata server did not give what was asked for; the text says what it did and for which path."""

    def __init__(self, text: str, *, passing: bool) -> None:
        super().__init__(text)
        self.passing = passing
        """Whether asking again can help (503, connection) or not (refused, not a metadata server)."""


@dataclass(frozen=True, slots=True)
class Answer:
    value: str
    etag: str


@dataclass(frozen=True, slots=True)
class Machine:
    """What the metadata server says of this VM. `scheduling` has the real server's keys, e.g. `preemptible`: `TRUE`."""

    name: str
    zone: str
    instance_id: str
    scheduling: Mapping[str, Any]
    attributes: Mapping[str, str]
    """Custom metadata. May hold secrets: not for the journal."""


async def access_token(ask: Callable[[str], Awaitable[str | None]]) -> str:
    """The VM's token, as the metadata server has it now; `ask` reads a path there. Raises MetadataError."""
    try:
        return str(json.loads(await ask(TOKEN_PATH) or "{}").get("access_token", ""))
    except (ValueError, AttributeError) as error:
        raise MetadataError(f"{TOKEN_PATH}: no JSON object in the answer", passing=True) from error


class MetadataClient:
    """`host` is HOST[:PORT] (default: `GCE_METADATA_HOST`, else the link-local address). Proxies are gone around.

    `transport`, `sleep`, `clock` are for tests. Use as `async with`, or call `close()`.
    """

    def __init__(
        self,
        host: str | None = None,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.host = host or os.environ.get("GCE_METADATA_HOST") or ADDRESS
        self._sleep = sleep
        self._clock = clock
        self._http = httpx2.AsyncClient(
            base_url=f"http://{self.host}/computeMetadata/v1/",
            headers=FLAVOR,
            trust_env=False,
            verify=False,  # plain http inside the VM; a TLS context would be 3.5 MB for nothing
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def get(self, path: str, *, recursive: bool = False, timeout: float = 5.0) -> str | None:
        """The value at `path` (JSON where `recursive`), None if there is none. `MetadataError` after `timeout` s."""
        query = {"recursive": "true"} if recursive else {}
        last: MetadataError | None = None
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        answer = await self._ask(path, query, read_timeout=timeout)
                        return None if answer is None else answer.value
                    except MetadataError as error:
                        if not error.passing:
                            raise
                        last = error
                    await self._pause()
        except TimeoutError:
            reason = last or f"{self._url(path)} did not answer"
            raise MetadataError(f"{reason}; gave up after {timeout:g} s", passing=True) from last

    async def machine(self, *, timeout: float = 5.0) -> Machine:
        """Identity, scheduling and custom metadata of this VM, in one request."""
        text = await self.get("instance/", recursive=True, timeout=timeout)
        try:
            seen = json.loads(text or "")
            return Machine(
                name=seen["name"],
                zone=seen["zone"].rpartition("/")[2],
                instance_id=str(seen["id"]),
                scheduling=seen.get("scheduling", {}),
                attributes=seen.get("attributes", {}),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MetadataError(
                f"{self._url('instance/')}: no name, zone and id in the answer ({error!r})", passing=False
            ) from error

    async def watch(self, path: str) -> AsyncGenerator[str]:
        """The value now, and again each time it changes or a poll's time is up. Never ends, never gives up."""
        etag = "0"  # matches nothing: the first answer comes at once
        away_since: float | None = None
        while True:
            asked = self._clock()
            query = {"wait_for_change": "true", "last_etag": etag, "timeout_sec": str(POLL_S)}
            try:
                answer = await self._ask(path, query, read_timeout=POLL_S + POLL_GRACE_S)
                if answer is None:
                    raise MetadataError(f"{self._url(path)}: 404, no such value", passing=False)
            except MetadataError as error:
                if away_since is None:
                    away_since = asked
                    log.warning("metadata_away", path=path, reason=str(error))
                await self._pause()
                continue
            if away_since is not None:
                log.info("metadata_back", path=path, seconds=round(self._clock() - away_since, 3))
                away_since = None
            yield answer.value
            if not answer.etag or (answer.etag == etag and self._clock() - asked < POLL_S / 2):
                await self._pause()  # this server does not hold polls: don't spin
            etag = answer.etag or "0"

    async def _ask(self, path: str, query: Mapping[str, str], *, read_timeout: float) -> Answer | None:
        """One request; None for a 404."""
        try:
            response = await self._http.get(path, params=query, timeout=httpx2.Timeout(2.0, read=read_timeout))
        except httpx2.HTTPError as error:
            text = f"{self._url(path)}: {str(error) or type(error).__name__}"
            raise MetadataError(text, passing=True) from error
        if response.headers.get("Metadata-Flavor") != "Google":
            raise MetadataError(
                f"{self._url(path)}: answered without 'Metadata-Flavor: Google', so it is not the metadata server "
                "(a proxy?): not believed",
                passing=False,
            )
        if response.status_code == httpx2.codes.NOT_FOUND:
            return None
        if response.status_code != httpx2.codes.OK:
            raise MetadataError(f"{self._url(path)}: HTTP {response.status_code}", passing=response.status_code >= 500)
        return Answer(response.text.strip(), response.headers.get("ETag", ""))

    async def _pause(self) -> None:
        await self._sleep(random.uniform(0.1, 0.5))  # noqa: S311 - jitter, no secret

    def _url(self, path: str) -> str:
        return f"http://{self.host}/computeMetadata/v1/{path}"


async def is_on_gce(
    *,
    timeout: float = 1.0,
    environ: Mapping[str, str] = os.environ,
    product_name: Path = PRODUCT_NAME,
    transport: httpx2.AsyncBaseTransport | None = None,
) -> bool:
    """Whether there is a metadata server to watch; answers within `timeout` seconds, from a file where it can.

    `GCE_METADATA_HOST` is believed unasked, as Google's clients do: a server that is away just now must be watched.
    """
    if environ.get("GCE_METADATA_HOST"):
        return True
    if environ.get("NO_GCE_CHECK") == "true":
        return False
    try:
        if product_name.read_text().startswith("Google"):
            return True
    except OSError:
        pass  # no DMI in this sandbox: ask
    try:
        async with MetadataClient(ADDRESS, transport=transport) as client:
            return await client.get("instance/id", timeout=timeout) is not None
    except MetadataError as error:
        log.info(
            "metadata_absent",
            reason=str(error),
            message="not on Google Compute Engine: going on with signals alone",
        )
        return False


async def watch_metadata(client: MetadataClient, notices: Notices) -> None:
    """Post a notice for each change of `preempted` to TRUE and of `maintenance-event` away from NONE; runs until
    cancelled. What is so already at the start is a notice at once."""

    async def follow(path: str, source: Source, cause: Cause, is_notice: Callable[[str], bool]) -> None:
        last = ""
        async for value in client.watch(path):
            if value != last and is_notice(value):
                notices.post(source, cause, value)
            last = value

    async with asyncio.TaskGroup() as group:
        group.create_task(follow("instance/preempted", "metadata", "preempted", lambda v: v == "TRUE"))
        group.create_task(
            follow("instance/maintenance-event", "maintenance", "maintenance", lambda v: v not in ("", "NONE"))
        )
