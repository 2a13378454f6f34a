"""Which words a field takes. The schema's types don't say it, the fields' descriptions do, in three ways of writing."""

from __future__ import annotations

import re

_LIST = re.compile(r"Possible values:\s*\[([^\]]*)\]")
_PROSE = re.compile(
    r"(?:(?:[Pp]ossible|[Vv]alid|[Aa]llowed|[Ss]upported) values(?: are| include)?:?|[Mm]ust be one of|either)\s+"
    r"(.{0,600})",
    re.DOTALL,
)
_WORD = re.compile(r"[A-Z][A-Z0-9_]*[A-Z0-9]")
_NO_VALUES = frozenset(
    {"API", "GCE", "GCP", "GKE", "VM", "VMS", "URL", "URI", "ID", "IP", "OS", "SSD", "CPU", "GB", "AND"}
)

KNOWN: dict[tuple[str, str], frozenset[str]] = {
    # The descriptions of these don't name the words: from Compute Engine's API, `Scheduling` and its neighbours.
    ("ComputeInstanceTemplateScheduling", "on_host_maintenance"): frozenset({"MIGRATE", "TERMINATE"}),
    ("ComputeInstanceTemplateScheduling", "instance_termination_action"): frozenset({"STOP", "DELETE"}),
    ("ComputeInstanceTemplateDisk", "type"): frozenset({"SCRATCH", "PERSISTENT"}),
    ("ComputeInstanceTemplateDisk", "mode"): frozenset({"READ_WRITE", "READ_ONLY"}),
    ("ComputeInstanceTemplateDisk", "interface"): frozenset({"SCSI", "NVME"}),
    ("StorageBucketConfig", "public_access_prevention"): frozenset({"enforced", "inherited"}),
    ("StorageBucketLifecycleRuleAction", "type"): frozenset(
        {"Delete", "SetStorageClass", "AbortIncompleteMultipartUpload"}
    ),
    ("StorageBucketLifecycleRuleAction", "storage_class"): frozenset(
        {"STANDARD", "MULTI_REGIONAL", "REGIONAL", "NEARLINE", "COLDLINE", "ARCHIVE"}
    ),
    ("StorageBucketConfig", "storage_class"): frozenset(
        {"STANDARD", "MULTI_REGIONAL", "REGIONAL", "NEARLINE", "COLDLINE", "ARCHIVE"}
    ),
    ("StorageBucketLifecycleRuleCondition", "with_state"): frozenset({"LIVE", "ARCHIVED", "ANY"}),
}
"""By block and field."""


def allowed_words(block: str, field: str, description: str) -> frozenset[str] | None:
    """The words that `field` of `block` takes, or None where nothing says that they are few."""
    if known := KNOWN.get((block, field)):
        return known
    if listed := _LIST.search(description):
        words = frozenset(re.findall(r"[^\s,\"'`\\]+", listed[1]))
        return words or None
    if prose := _PROSE.search(description):
        # One sentence: what follows tells of other things. A full stop inside a word, as in `e.g.`, ends it too, early.
        sentences = re.split(r"\.\s|\n\s*\n|Docs at Terraform", prose[1])
        words = frozenset(word for word in _WORD.findall(sentences[0]) if word not in _NO_VALUES)
        return words if len(words) > 1 else None
    return None
