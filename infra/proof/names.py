"""Two resources never claim one name: the second of them would fail at deployment, with 409 or a lock."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from infra.proof.mistake import Mistake
from infra.proof.schema import COMMENT

Json = dict[str, Any]

_ID = (
    "name", "account_id", "secret_id", "role_id", "repository_id", "workload_identity_pool_id",
    "workload_identity_pool_provider_id", "dataset_id",
)  # fmt: skip
_WHERE = (
    "project", "region", "zone", "location", "bucket", "router", "network", "secret", "topic", "billing_account",
    "workload_identity_pool_id",
)  # fmt: skip
"""What a name is unique in."""


def mistakes(stacks: Mapping[str, Json]) -> Iterator[Mistake]:
    """`stacks`: all of one app, by name. A name that Terraform works out is not compared."""
    claimed: dict[str, str] = {}
    states: dict[str, str] = {}
    for stack, synthesized in stacks.items():
        state = json.dumps(synthesized.get("terraform", {}).get("backend", {}), sort_keys=True)
        if state in states:
            reason = f"has its state where {states[state]} has it"
            yield Mistake(stack=stack, path="terraform.backend", reason=reason, fix="write another prefix")
        states.setdefault(state, stack)
        for of_type, named in synthesized.get("resource", {}).items():
            for name, body in named.items():
                where = f"{of_type}.{name}"
                if (identity := _identity(stack, of_type, body)) is None:
                    continue
                if identity in claimed:
                    reason = f"is called or says the same as {claimed[identity]}"
                    yield Mistake(stack=stack, path=where, reason=reason, fix="give it another name, or leave one out")
                claimed.setdefault(identity, f"{where} of {stack}")


def _identity(stack: str, of_type: str, body: Json) -> str | None:
    """What Google would refuse to have twice: the name and the place, or, without a name, all that is said."""
    said = {name: value for name, value in body.items() if name not in (COMMENT, "lifecycle", "depends_on")}
    if "name_prefix" in said:
        return None
    # A member of a role is no thing of its own: the ids it has are those of what it is a member on.
    of_its_own = "_iam_" not in of_type and any(name in said for name in _ID)
    kept = {name: said[name] for name in (*_ID, *_WHERE) if name in said} if of_its_own else said
    text = json.dumps(kept, sort_keys=True)
    # The same expression may mean different things in two stacks.
    return f"{of_type} {text} {stack if '${' in text else ''}"
