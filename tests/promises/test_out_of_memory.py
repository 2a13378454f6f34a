"""A trainer that the kernel kills for its memory, for real: the agent knows, and what was staged is not lost."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.promises.world import World, incidents

pytestmark = pytest.mark.slow
MIB = 1 << 20


@pytest.fixture
def small() -> Iterator[Path]:
    """A cgroup (v1 or v2) in which 600 MiB is all the memory there is."""
    for top, limit in (
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ("/sys/fs/cgroup", "memory.max"),
    ):
        group = Path(top, f"spot-test-{uuid.uuid4().hex[:8]}")
        if not Path(top, "cgroup.procs").exists() or not os.access(top, os.W_OK):
            continue
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(600 * MIB))
        except OSError:
            group.rmdir()
            continue
        yield group
        group.rmdir()
        return
    pytest.skip("no cgroup with a memory limit can be made here: that needs root and a writable /sys/fs/cgroup")


def test_a_trainer_killed_for_its_memory_is_called_so_and_does_not_lose_its_snapshot(
    world: World, reference: dict[str, Any], small: Path
) -> None:
    with world.fleet(env={"HUNGRY_CGROUP": str(small), "HUNGRY_STEP": "5"}) as fleet:
        fleet.command = [part.replace("tests.promises.toy", "tests.promises.hungry") for part in fleet.command]
        world.storage.fault("stall", action="create", name="part-", seconds=3.0)
        fleet.boot()
        resumed = fleet.wait_event("fetched", timeout=60, where=lambda values: values["source"] == "memory")
        assert resumed.values["step"] == 4
        assert world.finish(fleet) == reference
        (incident,) = incidents(fleet, world.store(fleet))
        assert incident["kind"] == "out_of_memory"
        assert incident["detail"].startswith("killed by the kernel: out of memory")
        assert (incident["step_reached"], incident["step_committed"]) == (5, 4)
