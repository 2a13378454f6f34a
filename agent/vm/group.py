"""Finish: a run that is over scales its own managed instance group to zero, so that nobody pays for an idle VM.

The group is named by the VM's metadata (`spot-group`); where stages of another machine follow, their group is too
(`spot-next-group`, `spot-next-size`), and is started before this one goes to zero. What fails is said in the journal
with the command that does it by hand.

`SPOT_COMPUTE_URL` redirects this to a local server, in tests and on a local cloud only: the VM's token goes there.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import httpx2
import structlog

from agent.config.causes import ENDS_OF_GROUP, Cause
from agent.notices.metadata import MetadataClient, MetadataError, access_token
from agent.store import StoreError
from agent.store.outgoing import outgoing

log = structlog.get_logger()

GROUP, NEXT_GROUP, NEXT_SIZE = "spot-group", "spot-next-group", "spot-next-size"
COMPUTE = "https://compute.googleapis.com"
_PATH = re.compile(r"projects/[^/\s]+/(zones|regions)/[^/\s]+/instanceGroupManagers/[^/\s]+")
_RETRIED = frozenset({401, 408, 409, 412, 429, 500, 502, 503, 504})
_DEADLINE_S = 60.0
_ATTEMPT_S = 10.0
_LONGEST_PAUSE_S = 8.0


class GroupError(Exception):
    """A group was not resized; the text says why. `passing`: asking again can help."""

    def __init__(self, text: str, *, passing: bool = False) -> None:
        super().__init__(text)
        self.passing = passing


@dataclass(frozen=True)
class Finish:
    """What is to be done at the end of a run, as the VM's metadata says."""

    group: str
    next_group: str | None = None
    next_size: int = 1

    @classmethod
    def of(cls, attributes: Mapping[str, str]) -> Finish | None:
        """None where the VM belongs to no group of ours. Raises GroupError for what can't be meant."""
        if GROUP not in attributes:
            return None
        size = attributes.get(NEXT_SIZE, "1")
        if not size.isdigit() or not int(size):
            raise GroupError(f"metadata {NEXT_SIZE} is {size!r}; it should be a number of VMs")
        for key in (GROUP, NEXT_GROUP):
            if key in attributes and not _PATH.fullmatch(attributes[key]):
                raise GroupError(
                    f"metadata {key} is {attributes[key]!r}; it should be projects/P/zones/Z/instanceGroupManagers/G"
                )
        return cls(attributes[GROUP], attributes.get(NEXT_GROUP), int(size))


class Groups:
    """Compute Engine's instance group managers, as far as a VM may touch them. `ask` reads the metadata server."""

    def __init__(self, ask: Callable[[str], Awaitable[str | None]], *, base: str | None = None) -> None:
        self._ask = ask
        self._base = (base or os.environ.get("SPOT_COMPUTE_URL") or COMPUTE).rstrip("/")

    async def resize(self, group: str, size: int, *, deadline_s: float = _DEADLINE_S) -> None:
        """Ask for `size` VMs and see that the group took it, with retries until `deadline_s`. Raises GroupError."""
        request = str(uuid.uuid4())  # asked twice under one id, Compute Engine does it once
        pause, last = 0.5, GroupError("there was no time to ask")
        try:
            client = httpx2.AsyncClient(timeout=_ATTEMPT_S, transport=outgoing(self._base))
        except StoreError as error:
            raise GroupError(str(error)) from None
        try:
            async with asyncio.timeout(deadline_s), client:
                while True:
                    try:
                        await self._call(client, "POST", f"{group}/resize", size=str(size), requestId=request)
                        seen = (await self._call(client, "GET", group)).get("targetSize")
                        if seen == size:
                            return
                        last = GroupError(f"it was asked for {size} VMs and says {seen}", passing=True)
                    except GroupError as error:
                        last = error
                        if not error.passing:
                            raise
                    await asyncio.sleep(random.uniform(0.5, 1.0) * pause)  # noqa: S311 - jitter, no secret
                    pause = min(_LONGEST_PAUSE_S, pause * 2)
        except TimeoutError:
            raise GroupError(f"not done within {deadline_s:g} s: {last}", passing=True) from last

    async def _call(self, client: httpx2.AsyncClient, method: str, path: str, **query: str) -> dict[str, object]:
        try:
            token = await access_token(self._ask)
        except MetadataError as error:
            raise GroupError(f"no access token from the metadata server: {error}", passing=True) from error
        try:
            answer = await client.request(
                method,
                f"{self._base}/compute/v1/{path}",
                params=query,
                headers={"Authorization": f"Bearer {token}"},
            )
        except httpx2.HTTPError as error:
            raise GroupError(f"{self._base}: {type(error).__name__}", passing=True) from None
        if answer.status_code != 200:
            raise GroupError(_told(answer), passing=answer.status_code in _RETRIED)
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise GroupError(f"{self._base} answered {path} with no JSON object", passing=True)
        return body


@dataclass(frozen=True)
class NextGroup:
    """The group of the next stages. `groups` may resize it."""

    groups: Groups
    path: str
    size: int

    async def start(self) -> None:
        """Ask for its VMs. Raises GroupError, with the command that does it by hand."""
        try:
            await self.groups.resize(self.path, self.size)
        except GroupError as error:
            by = f"by hand: {by_hand(self.path, self.size)}"
            raise GroupError(f"{self.path}: {error}; {by}", passing=error.passing) from error
        log.info("group_resized", group=self.path, size=self.size)


async def next_group(metadata: MetadataClient) -> NextGroup:
    """The group that follows this VM's own. Raises GroupError where none does, or nobody says which."""
    try:
        plan = Finish.of((await metadata.machine(timeout=_DEADLINE_S)).attributes)
    except MetadataError as error:
        raise GroupError(f"the metadata server does not name it: {error}", passing=True) from error
    if plan is None or plan.next_group is None:
        raise GroupError(f"this VM's metadata name none: {NEXT_GROUP} is missing")
    return NextGroup(Groups(metadata.get), plan.next_group, plan.next_size)


async def finish(ending: Cause | None, metadata: MetadataClient, *, deadline_s: float = _DEADLINE_S) -> bool:
    """Scale this VM's group to zero where no VM of it is needed any more. Never raises.

    True when all that was to be done is done: nothing after a preemption, an operator's stop or for a newer VM's sake,
    since the run goes on then, and nothing on a VM of no group. It has `deadline_s` seconds.
    """
    if ending not in ENDS_OF_GROUP:
        return True
    try:
        plan = Finish.of((await metadata.machine(timeout=deadline_s)).attributes)
    except (GroupError, MetadataError) as error:
        log.error("group_not_resized", error=str(error), by_hand="resize the VM's instance group to 0")
        return False
    if plan is None:
        return True
    return await _resize(Groups(metadata.get), plan.group, 0, deadline_s)


async def _resize(groups: Groups, group: str, size: int, deadline_s: float) -> bool:
    try:
        await groups.resize(group, size, deadline_s=deadline_s)
    except GroupError as error:
        log.error("group_not_resized", group=group, size=size, error=str(error), by_hand=by_hand(group, size))
        return False
    log.info("group_resized", group=group, size=size)
    return True


def by_hand(group: str, size: int) -> str:
    """The command that resizes `group`."""
    _, project, where, place, _, name = group.split("/")
    place_option = f"--{where.removesuffix('s')}={place}"
    return f"gcloud compute instance-groups managed resize {name} --size={size} {place_option} --project={project}"


def _told(answer: httpx2.Response) -> str:
    """What Google's error body says: status and message, which names the permission that is missing."""
    try:
        message = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = answer.text[:200]
    return f"HTTP {answer.status_code}: {message}"
