"""What a run's objects are called in its bucket: the agent writes them, the stacks' grants and rules name them.

All are below the run's own prefix. A VM creates and reads everywhere there, and deletes below ROLLING alone.
"""

from __future__ import annotations

ROLLING = "rolling/"
"""Checkpoints, of which the newest stay."""
MILESTONES = "milestones/"
"""Checkpoints that stay for good."""
MILESTONE_PART = ".milestone"
"""How the names of a milestone's parts end, and nothing else's: by it Cloud Storage moves them to cheaper storage."""
LINE = "line/"
"""Which attempt may advance the run, and what it has committed."""
RESULTS = "results/"
RESULT_PARTS = f"{ROLLING}result/"
"""Of large files, until they are joined: where a VM may delete."""
METRICS = "metrics/"
TOKENS = "tokens/"
"""The text as tokens, made once and fetched by each VM that follows (workloads/kept.py)."""
PICTURES = "pictures/"
"""What people look at while it trains (workloads/arr_coc/shown.py)."""
TRACKING = "tracking/"
"""How far each tracker has been told, and as what it knows the run."""
HOURS = "hours/"
"""Signs of life of each boot of a VM."""
BOOTS = "boots/"
"""VMs that came to no agent: a record for each, and for each time that the group was set to zero for it."""
BOOT_ENDS = ("-failed-boot.json", "-gave-up-boot.json")
"""How their names end (infra/stacks/fleet/runtime/boot_failed.py)."""
EVENTS = "events/"
"""The ledger: a record for each incident and each return."""
