"""A VM that comes to no agent: it is told of, it counts, and so many in a row end the group."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from agent.store import open_store
from agent.store.names import BOOT_ENDS, BOOTS, LINE
from infra.local.cloud import VM_IDENTITY, local_cloud
from infra.local.cloud_logging import CloudLogging
from infra.local.compute import ComputeServer, InstanceGroup
from infra.local.metadata import MetadataServer
from infra.stacks.fleet.metadata import BOOT_FAILED

GROUP = "projects/p/zones/us-central1-a/instanceGroupManagers/spot-demo"
Fail = Callable[..., str]


@pytest.fixture
def cloud() -> Iterator[tuple[Fail, InstanceGroup, CloudLogging]]:
    tokens: dict[str, str] = {}
    with local_cloud("runs", ["team/demo"]) as local:

        def mint(identity: str, lifetime_s: float) -> str:
            token = local.mint(identity, lifetime_s)
            tokens[token] = identity
            return token

        with (
            MetadataServer(service_account=VM_IDENTITY, mint=mint) as metadata,
            ComputeServer(identify=tokens.get) as compute,
            CloudLogging(identify=tokens.get, writers={VM_IDENTITY}) as logging,
        ):
            group = compute.add_group(GROUP, target_size=1)
            compute.allow(VM_IDENTITY, "compute.instanceGroupManagers.update", GROUP)
            for key, value in (("home", "gs://runs/team/demo"), ("group", GROUP), ("failed-boots", "2")):
                metadata.set(f"instance/attributes/spot-{key}", value)
            servers = {
                "GCE_METADATA_HOST": metadata.host,
                "STORAGE_EMULATOR_HOST": local.storage.url,
                "SPOT_COMPUTE_URL": compute.url,
                "SPOT_LOGGING_URL": logging.url,
            }

            def fail(*arguments: str) -> str:
                command = [sys.executable, str(BOOT_FAILED), *arguments]
                done = subprocess.run(command, env=os.environ | servers, capture_output=True, text=True, check=False)
                assert (done.returncode, done.stderr) == (0, "")
                return done.stdout

            yield fail, group, logging


def test_so_many_failed_boots_in_a_row_set_the_group_to_zero_and_say_why(
    cloud: tuple[Fail, InstanceGroup, CloudLogging],
) -> None:
    """A group makes a new VM of each, for ever, and each of them is paid for."""
    fail, group, logging = cloud
    store = open_store("gs://runs/team/demo")
    assert fail("bundle", "bundle failed") == ""
    assert group.target_size == 1
    store.create(f"{LINE}999999998.json", b"{}", timeout=5)  # an agent came up after that: none in a row
    assert fail("bundle", "bundle failed") == ""
    assert group.target_size == 1
    assert fail("bundle", "no room").startswith(
        "2 boots in a row came to no agent, the last of them at bundle: no room"
    )
    assert group.target_size == 0
    told = [(entry["jsonPayload"]["EVENT"], entry["jsonPayload"]["RUN_ID"]) for entry in logging.entries]
    assert told == [("boot_failed", "demo")] * 3 + [("boot_gave_up", "demo")]
    kept = [stored.name for stored in store.list(BOOTS, timeout=5)]
    assert sorted(name.partition("-")[2][6:] for name in kept) == sorted([BOOT_ENDS[0]] * 3 + [BOOT_ENDS[1]])
    assert json.loads(store.read(kept[0], timeout=5))["stage"] == "bundle"

    group.target_size = 1  # `spot start`: its boots count anew
    assert fail("run_file", "run_file failed") == ""
    assert group.target_size == 1


def test_a_vm_that_is_still_refused_when_grants_had_their_time_ends_its_group_at_once(
    cloud: tuple[Fail, InstanceGroup, CloudLogging],
) -> None:
    fail, group, logging = cloud
    assert "HTTP 403 from gs://runs" in fail("bundle", "bundle failed", "HTTP 403 from gs://runs")
    assert group.target_size == 0
    assert logging.entries[-1]["jsonPayload"]["EVENT"] == "boot_gave_up"
