"""How long the group waits for a VM before it makes a new one, from what starting takes.

The group sees at once that a VM is gone. Its health check is for the rest: a VM that runs and has no agent that steps.
The agent's own rules come first, as they know more: it starts a trainer that crashed or hung on the same VM, from
memory, and gives the run up after `supervision.crash_limit` failures in a row, for the whole group. A group that is
less patient than that would make a new VM in the middle of a restore, and a run that can only crash would never end.
"""

from __future__ import annotations

import math

from agent.config import RunConfig

BOOT_S = 600
"""From the start of a VM to the start of the agent. A pre-baked image needs about a minute; the startup script may
have to install PyTorch (3 GB), which takes several."""

RESTART_S = 300
"""From the start of a trainer to its first step, an upper bound. Measured: 6 s for 0.1 GB of state, most of it Python
importing torch; a restore of 1.2 GB takes 1.9 s at 100 MB/s a stream, so 100 GB take less than three minutes."""

LONGEST_DELAY_S = 3600
"""Compute Engine's limit for auto-healing's initial delay."""

FAILURES = 10
"""Health checks in a row that must fail; Compute Engine allows 10 at most, one in 5 minutes at the slowest."""

_SLOWEST_CHECK_S = 300


def check_interval_s(run: RunConfig) -> int:
    """Between two health checks: FAILURES of them cover all starts of the trainer before the agent gives up."""
    patience = RESTART_S * run.supervision.crash_limit
    return min(max(math.ceil(patience / FAILURES), 10), _SLOWEST_CHECK_S)


def initial_delay_s(run: RunConfig) -> int:
    """From the start of a VM until its health counts; the first healthy answer ends it sooner."""
    return min(BOOT_S + RESTART_S * run.supervision.crash_limit, LONGEST_DELAY_S)
