"""What a plan does to VMs that train now, to what other runs share, and to what is kept: in words, before it is done.

Read from Terraform's own account of its plan (`terraform show -json`, resource_changes).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

Json = dict[str, Any]

_GROUPS = ("google_compute_instance_group_manager", "google_compute_region_instance_group_manager")
_NETWORK = ("google_compute_network", "google_compute_subnetwork", "google_compute_router", "google_compute_router_nat")


def consequences(changes: Iterable[Json]) -> list[str]:
    """Nothing for a plan that only makes what is not there yet."""
    listed = list(changes)
    told = [line for change in listed for line in _of(change)]
    taken = [_granted(change) for change in listed if _is_grant(change) and _does(change) == {"delete"}]
    if taken:
        told.append(f"takes {len(taken)} grant{'s' if len(taken) > 1 else ''} away: {'; '.join(taken)}")
    return told


def _of(change: Json) -> Iterator[str]:
    kind, does = change["type"], _does(change)
    before = change["change"].get("before") or {}
    name = before.get("name") or change["address"]
    if kind in _GROUPS:
        if does >= {"create", "delete"}:
            yield (
                f"replaces the group {name} ({_because(change)}): its VMs are taken away now, each saves in its "
                "window, and the new group's VMs go on from there"
            )
        elif does == {"delete"}:
            yield f"takes the group {name} away, with its VMs: each saves in its window; the bucket keeps all"
        elif "update" in does:
            yield f"changes the group {name}: VMs that train go on, and take the new template when they are next made"
    elif kind == "google_storage_bucket" and "delete" in does:
        yield (
            f"DELETES gs://{name} with all that is in it"
            if does == {"delete"}
            else f"replaces gs://{name} ({_because(change)}), which Terraform refuses: a bucket stays where it is. "
            "Write machine.region as it was, or another checkpoint.bucket"
        )
    elif kind in _NETWORK and "delete" in does and does != {"delete"}:
        yield f"replaces {kind.removeprefix('google_compute_')} {name}, which other runs of the bucket use"
    elif kind == "google_service_account" and "delete" in does:
        yield f"takes the identity {before.get('email', name)} away, as which VMs of the run read and write"


def _does(change: Json) -> set[str]:
    return set(change["change"]["actions"])


def _because(change: Json) -> str:
    paths = change["change"].get("replace_paths") or []
    return ", ".join(".".join(map(str, path)) for path in paths) or "as planned"


def _is_grant(change: Json) -> bool:
    return str(change["type"]).endswith("_iam_member")


def _granted(change: Json) -> str:
    before = change["change"].get("before") or {}
    return f"{before.get('role', '?').rpartition('/')[2]} of {before.get('member', '?')}"
