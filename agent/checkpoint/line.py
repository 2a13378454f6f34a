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


def claim_attempt(store: Store, *, claimant: str, facts: dict[str, str], timeout: float) -> int:
    """Claim the next attempt number for `claimant`, one boot of one VM; `facts` are kept with it for the report.

    Raises:
        AttemptError: other claimants were faster every time, so several VMs fight for this run.
    """
    for _ in range(_TRIES):
        number = newest_attempt(store, timeout=timeout) + 1
        body = json.dumps({"attempt": number, "claimant": claimant, **facts}, sort_keys=True).encode()
        try:
            store.create(f"{PREFIX}{number:06d}.json", body, timeout=timeout)
        except AlreadyExists:
            continue
        return number
    raise AttemptError(
        f"{store.url}: {_TRIES} attempts in a row were claimed by somebody else: more than one VM is starting this run "
        "again and again. Give each run its own run_id, or set the group's size to one"
    )


def superseded_by(store: Store, attempt: int, *, claimant: str, timeout: float) -> int | None:
    """The newest attempt after `attempt` that another than `claimant` has claimed; None where there is none."""
    for number, name in sorted(_claims(store, timeout=timeout), reverse=True):
        if number <= attempt:
            return None
        if json.loads(store.read(name, timeout=timeout)).get("claimant") != claimant:
            return number
    return None


def newest_attempt(store: Store, *, timeout: float) -> int:
    """The highest attempt number claimed so far; 0 before the first."""
    return max((number for number, _ in _claims(store, timeout=timeout)), default=0)


def _claims(store: Store, *, timeout: float) -> list[tuple[int, str]]:
    """Number and name of every claim; what else may lie there is not ours."""
    names = [entry.name for entry in store.list(PREFIX, timeout=timeout)]
    found = [(name.removeprefix(PREFIX).removesuffix(".json"), name) for name in names]
    return [(int(number), name) for number, name in found if number.isdecimal()]
