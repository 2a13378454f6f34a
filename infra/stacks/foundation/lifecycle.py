"""What Cloud Storage does to the bucket's objects by itself, rule by rule, each with its reason.

A bucket's runs are not known here, and a rule can't say RUN_ID/milestones/*. So what may be moved or deleted carries
its mark at an end of its name that a rule can name, and that nothing in rolling/ has: Delete rules match only below
`expired/`, which no run can be in, and records of incidents and resumes by the end of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from cdktn_provider_google.storage_bucket import (
    StorageBucketLifecycleRule,
    StorageBucketLifecycleRuleAction,
    StorageBucketLifecycleRuleCondition,
)

from agent.config.causes import Cause
from agent.store.names import BOOT_ENDS, MILESTONE_PART
from infra.stacks.deployment import EXPIRED


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule. An object must meet every condition that is given; `days` are since its creation."""

    why: str
    action: Literal["Delete", "SetStorageClass", "AbortIncompleteMultipartUpload"]
    to_class: Literal["NEARLINE", "COLDLINE"] | None = None
    days: int | None = None
    days_since_custom_time: int | None = None
    prefixes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    smaller_than: int | None = None


RECORDS = ("-resume.json", *(f"-incident-{kind}.json" for kind in get_args(Cause)), *BOOT_ENDS)
"""How the names of `events/` end (agent/telemetry/ledger.py), and those of `boots/`."""

ABORT_UPLOADS = Rule(
    why="an upload in parts that was given up is billed for ever, and seen in no listing",
    action="AbortIncompleteMultipartUpload",
    days=7,
)
MILESTONES_TO_NEARLINE = Rule(
    why="a milestone is read when somebody evaluates it, which is soon or seldom",
    action="SetStorageClass",
    to_class="NEARLINE",
    days=30,
    suffixes=(MILESTONE_PART,),
    classes=("STANDARD",),
)
MILESTONES_TO_COLDLINE = Rule(
    why="after four months it is kept for the record; Nearline's 30 days are over, so that the move costs no fee",
    action="SetStorageClass",
    to_class="COLDLINE",
    days=120,
    suffixes=(MILESTONE_PART,),
    classes=("NEARLINE",),
)
DELETE_EXPIRED = Rule(
    why="what an operator moved there and gave a Custom-Time goes a month after that time; either alone does nothing",
    action="Delete",
    days_since_custom_time=30,
    prefixes=(EXPIRED,),
)
DELETE_RECORDS = Rule(
    why="records of incidents say little after a year; they are small, so that no result of that name is taken for one",
    action="Delete",
    days=400,
    suffixes=RECORDS,
    smaller_than=65536,
)
RULES = (ABORT_UPLOADS, MILESTONES_TO_NEARLINE, MILESTONES_TO_COLDLINE, DELETE_EXPIRED, DELETE_RECORDS)


def lifecycle_rules() -> list[StorageBucketLifecycleRule]:
    """`RULES` as the bucket takes them."""
    return [
        StorageBucketLifecycleRule(
            action=StorageBucketLifecycleRuleAction(type=rule.action, storage_class=rule.to_class),
            condition=StorageBucketLifecycleRuleCondition(
                age=rule.days,
                days_since_custom_time=rule.days_since_custom_time,
                matches_prefix=list(rule.prefixes) or None,
                matches_suffix=list(rule.suffixes) or None,
                matches_storage_class=list(rule.classes) or None,
                size_below_bytes=rule.smaller_than,
            ),
        )
        for rule in RULES
    ]
