"""How long the group waits for a VM before it makes a new one, from what starting takes.

The group sees at once that a VM is gone. Its health check is for the rest: a VM that runs and has no agent that steps.
The agent's own rules come first, as they know more: each phase of a trainer has its limit (`supervision`), a trainer
that crashed or hung is started again on the same VM, from memory, and the run is given up after
`supervision.crash_limit` failures in a row, for the whole group. A group that is less patient than that would make a
new VM in the middle of a restore or of tokenising, again and again, and a run that can only crash would never end.

Until a VM's trainer has stepped for the first time it is unhealthy: this is the time that is counted here. Later its
agent answers healthy in each phase that is within its limit (agent/telemetry/health.py).
"""

from __future__ import annotations

import math

from agent.config import RunConfig
from agent.config.sections import ON_THEIR_OWN

BOOT_S = 600
"""From the start of a VM to the start of the agent. A pre-baked image needs about a minute; the startup script may
have to install PyTorch (3 GB), which takes several."""

RESTART_S = 300
"""From the start of a trainer that crashes to the next one's, an upper bound. Measured: 6 s for 0.1 GB of state, most
of it Python importing torch; a restore of 1.2 GB takes 1.9 s at 100 MB/s a stream, so 100 GB less than 3 minutes."""

LONGEST_DELAY_S = 3600
"""Compute Engine's limit for auto-healing's initial delay."""

FAILURES = 10
"""Health checks in a row that must fail; Compute Engine allows 10 at most, one in 5 minutes at the slowest."""

SLOWEST_CHECK_S = 300


LONGEST_S = LONGEST_DELAY_S + FAILURES * SLOWEST_CHECK_S
"""More patience than this no group has."""


def first_step_s(run: RunConfig) -> float:
    """From the start of a VM to its trainer's first step, at the latest: all that it prepares, and restoring."""
    prepares = run.supervision.prepare_timeout if run.workload.kind in ON_THEIR_OWN else 0.0
    return BOOT_S + prepares + run.supervision.start_timeout + run.supervision.restore_timeout


def initial_delay_s(run: RunConfig) -> int:
    """From the start of a VM until its health counts; the first healthy answer ends it sooner."""
    return min(math.ceil(max(first_step_s(run), BOOT_S + _crashing_s(run))), LONGEST_DELAY_S)


def check_interval_s(run: RunConfig) -> int:
    """Between two health checks: FAILURES of them cover what the initial delay can't, and all starts of a trainer that
    crashes before the agent gives up."""
    patience = max(first_step_s(run) - initial_delay_s(run), _crashing_s(run))
    return min(max(math.ceil(patience / FAILURES), 10), SLOWEST_CHECK_S)


def _crashing_s(run: RunConfig) -> float:
    return RESTART_S * run.supervision.crash_limit
