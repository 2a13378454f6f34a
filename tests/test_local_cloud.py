"""The local cloud, as a process that starts one after the other sees it."""

from __future__ import annotations

import pytest

from agent.store import Forbidden, open_store
from infra.local.cloud import acting_as, local_cloud
from infra.local.metadata import MetadataServer


def test_one_process_can_have_one_cloud_after_the_other_each_with_its_own_tokens() -> None:
    for turn in range(2):
        with local_cloud("demo", ["runs/a"]):
            assert open_store("gs://demo/runs").create(f"turn-{turn}", b"made", timeout=5).size == 4


def test_a_process_acts_as_a_vm_for_as_long_as_told_and_as_the_operator_before_and_after() -> None:
    with local_cloud("demo", ["runs/a"]) as cloud:
        open_store("gs://demo/runs/a").create("milestones/1", b"made", timeout=5)
        with MetadataServer(mint=cloud.mint) as metadata, acting_as(metadata), pytest.raises(Forbidden):
            open_store("gs://demo/runs/a").delete("milestones/1", timeout=5)
        open_store("gs://demo/runs/a").delete("milestones/1", timeout=5)
