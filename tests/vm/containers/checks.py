"""What every scenario ends with: nothing committed is lost, nothing is half-written, and the ledger tells the truth.

The observer is not the agent: the bucket's server with its log of requests, and the rig with its clock.
"""

from __future__ import annotations

import json
import re
import time
from datetime import datetime
from typing import Any

import google_crc32c

from agent.checkpoint.bucket import Checkpoints
from agent.checkpoint.manifest import MANIFEST, parse_manifest
from agent.store import NotFound
from infra.local.storage.seen import Seen
from tests.vm.containers.group import Group

AGREE_S = 0.25
"""Between the agent's clock and the server's look at its own: the machine is shared, and busy."""
HEARD_S = 0.5
_CALL_S = 30.0
_CHECKPOINT = re.compile(r"(rolling|milestones)/(\d{12})-(\d{5}(?:-[0-9a-f]{8})?)/(.+)")
_OTHERS = re.compile(r"(metrics|events|line)/[^/]+\.jsonl?|results/.+|(environments|hours)/.+")


def check(group: Group) -> None:
    """All of it, for a scenario that has ended."""
    check_objects(group)
    check_resumes(group)
    check_ledger(group)


def check_objects(group: Group) -> None:
    """Every object is part of a whole checkpoint, of one that was never committed, or a whole record."""
    for tries_left in reversed(range(3)):
        try:
            _check_objects(group)
            return
        except NotFound:  # retired between our listing and our look: a VM may be at work still
            if not tries_left:
                raise


def _check_objects(group: Group) -> None:
    store = group.store
    names = {stored.name: stored.size for stored in store.list(timeout=_CALL_S)}
    for name in names:
        checkpoint = _CHECKPOINT.fullmatch(name)
        assert checkpoint or _OTHERS.fullmatch(name), f"{name}: nobody knows what this is"
        if checkpoint and checkpoint[4] == MANIFEST:
            manifest = parse_manifest(store.read(name, timeout=_CALL_S), where=name)
            assert manifest.run_id == group.run_id
            for rank in manifest.ranks:
                for part in rank.parts:
                    assert names.get(part.name) == part.size, (
                        f"{name} names {part.name}, which is not there, or not whole"
                    )
                    body = store.read(part.name, timeout=_CALL_S)
                    assert google_crc32c.value(bytes(body)) == part.crc32c, f"{part.name} is damaged"
        elif not checkpoint and name.endswith(".json"):
            json.loads(store.read(name, timeout=_CALL_S))
        elif not checkpoint and name.endswith(".jsonl"):
            for line in store.read(name, timeout=_CALL_S).splitlines():
                json.loads(line)


def commits(group: Group) -> list[tuple[float, int]]:
    """(when, step) of every checkpoint, as the bucket's server saw them: Unix seconds."""
    found = []
    for seen in group.cloud.requests(group.run_id):
        match = _CHECKPOINT.fullmatch(seen.name)
        if match and match[1] == "rolling" and match[4] == MANIFEST and seen.action == "create" and seen.status == 200:
            found.append((seen.at + seen.seconds, int(match[2])))
    return found


def check_resumes(group: Group) -> None:
    """Whoever resumed did so from the newest that was committed before, or from something newer in memory."""
    committed = commits(group)
    for record in group.resumes():
        begun = datetime.fromisoformat(record["at_utc"]).timestamp()
        if group.skew_s:
            continue  # its wall clock is what the scenario bends; what was fetched is looked at there
        newest = max((step for at, step in committed if at < begun), default=0)
        assert record["step"] >= newest, f"resumed at {record['step']}, and {newest} was committed"
    if committed:
        entries = Checkpoints(group.store, group.run_id).entries(timeout=_CALL_S)
        assert entries, "checkpoints were committed, and none is left"
        assert entries[0].step >= max(step for _, step in committed), "the newest checkpoint is gone"
        # A VM may be at work still: what it committed since is in the server's log by now.
        assert entries[0].step in {step for _, step in commits(group)}, "a checkpoint that nobody committed"


def check_ledger(group: Group) -> None:
    """Each window's record agrees with the bucket's server within AGREE_S, and with the rig."""
    offset = time.time() - time.monotonic()
    requests = group.cloud.requests(group.run_id)
    windows = [
        record for record in group.incidents() if record["kind"] in ("preempted", "operator_stop", "maintenance")
    ]
    for record in windows:
        if record["window_s"] is None:
            continue
        seen_by_rig = [
            at
            for vm in group.vms
            for at in (vm.notice_at, vm.button_at)
            if at is not None
            and vm.started_at < record["at"]
            and (vm.off_at is None or record["at"] < vm.off_at)
            and vm.listens_since() < at  # else it was told before there was an agent
        ]
        if seen_by_rig and not group.slow_notice:
            late = record["at"] - min(seen_by_rig)
            assert -0.001 <= late <= HEARD_S, f"heard of it {late * 1000:.0f} ms after the rig said it"
        for prefix in ("", "last_"):
            _agrees(record, f"{prefix}committed", _manifest(requests, record, prefix), offset)
        off = [vm.off_at for vm in group.vms if vm.off_at and vm.off_at > record["at"]]
        if off and "committed" in record["phases_s"]:
            assert record["at"] + record["phases_s"]["committed"] <= min(off), "committed after its power was gone"
            assert record["phases_s"]["committed"] <= record["window_s"], "committed outside of the window"


def _manifest(requests: list[Seen], record: dict[str, Any], prefix: str) -> list[float]:
    """When the server had each manifest of this attempt."""
    wanted = re.compile(rf"rolling/\d{{12}}-{record['attempt']:05d}(-[0-9a-f]{{8}})?/{re.escape(MANIFEST)}")
    return [
        seen.at + seen.seconds
        for seen in requests
        if wanted.fullmatch(seen.name) and seen.action == "create" and seen.status == 200
    ]


def _agrees(record: dict[str, Any], phase: str, seen: list[float], offset: float) -> None:
    if phase not in record["phases_s"]:
        return
    told = record["at"] + record["phases_s"][phase] + offset
    apart = min((abs(told - at) for at in seen), default=float("inf"))
    assert apart <= AGREE_S, f"{phase}: the record says so {apart * 1000:.0f} ms away from when the server saw it"
