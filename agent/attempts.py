"""Attempts: which start of the trainer may advance the run.

Every start of a trainer claims the next number with a create-only object. Whoever sees a number above its own is
superseded: it commits nothing more and stops. Two VMs never both advance a run.
"""

from __future__ import annotations

import json

from agent.store import AlreadyExists, Store

PREFIX = "attempts/"
_TRIES = 20


class AttemptError(Exception):
    """No attempt could be claimed."""


def claim_attempt(store: Store, *, facts: dict[str, str], timeout: float) -> int:
    """Claim the next attempt number; `facts` (VM, boot, time) are kept with it for the report.

    Raises:
        AttemptError: other claimants were faster every time, so several VMs fight for this run.
    """
    for _ in range(_TRIES):
        number = newest_attempt(store, timeout=timeout) + 1
        body = json.dumps({"attempt": number, **facts}, sort_keys=True).encode()
        try:
            store.create(f"{PREFIX}{number:06d}.json", body, timeout=timeout)
        except AlreadyExists:
            continue
        return number
    raise AttemptError(
        f"{store.url}: {_TRIES} attempts in a row were claimed by somebody else: more than one VM is starting this run "
        "again and again. Give each run its own run_id, or set the group's size to one"
    )


def newest_attempt(store: Store, *, timeout: float) -> int:
    """The highest attempt number claimed so far; 0 before the first."""
    return max((int(entry.name.removeprefix(PREFIX)[:6]) for entry in store.list(PREFIX, timeout=timeout)), default=0)
