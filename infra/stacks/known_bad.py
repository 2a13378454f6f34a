"""Refuses stacks that are known to be bad, before Terraform sees them."""

from __future__ import annotations

import json
from pathlib import Path

from infra.stacks.deployment import NotDeployable
from infra.stacks.fleet.known_bad import find_known_bad
from infra.stacks.fleet.stop_times import find_slow_stops

UNITS = Path(__file__).parents[2] / "systemd"


def refuse_known_bad(out: Path, *, units: Path = UNITS) -> None:
    """Raises NotDeployable, which names all that is bad in the stacks below `out` and in the VMs' units."""
    found = [str(bad) for bad in find_slow_stops(units)]
    for stack in sorted(out.glob("stacks/*/cdk.tf.json")):
        found += [f"stack {stack.parent.name}: {bad}" for bad in find_known_bad(json.loads(stack.read_text()))]
    if found:
        raise NotDeployable("\n".join(found))
