"""What Cloud Storage would do to an object by a bucket's lifecycle rules, read from the stacks' JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from infra.stacks.deployment import NotDeployable

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Described:
    """An object, or an upload in parts that was not finished. Times are in days before now."""

    name: str
    age: int = 0
    storage_class: str = "STANDARD"
    size: int = 1 << 20
    custom_time: int | None = None
    noncurrent: int | None = None
    unfinished_upload: bool = False


def actions(rules: Iterable[Json], described: Described) -> set[str]:
    """Delete, SetStorageClass NEARLINE and so on: of all rules that match, whichever of them would win.

    Raises NotDeployable for a condition that is not understood here.
    """
    found = set()
    for rule in rules:
        action = rule["action"]
        for_upload = action["type"] == "AbortIncompleteMultipartUpload"
        if for_upload == described.unfinished_upload and _matches(rule["condition"], described):
            found.add(" ".join(filter(None, (action["type"], action.get("storage_class")))))
    return found


def _matches(condition: Json, described: Described) -> bool:
    """All that the condition says holds; an empty one would hold for everything."""
    return all(_holds(key, value, described) for key, value in condition.items() if value is not None)


def _holds(key: str, value: Any, described: Described) -> bool:
    if key == "age":
        return bool(described.age >= value)
    if key == "days_since_custom_time":
        return described.custom_time is not None and bool(described.custom_time >= value)
    if key == "days_since_noncurrent_time":
        return described.noncurrent is not None and bool(described.noncurrent >= value)
    if key == "matches_prefix":
        return described.name.startswith(tuple(value))
    if key == "matches_suffix":
        return described.name.endswith(tuple(value))
    if key == "matches_storage_class":
        return bool(described.storage_class in value)
    if key == "size_below_bytes":
        return bool(described.size < value)
    if key == "with_state":
        return bool(value == "ANY") or (value == "ARCHIVED") == (described.noncurrent is not None)
    raise NotDeployable(f"lifecycle condition {key} is not understood\n    fix: teach it to infra/proof/lifecycle.py")
