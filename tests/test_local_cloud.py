"""The local cloud, as a process that starts one after the other sees it."""

from __future__ import annotations

from agent.store import open_store
from infra.local.cloud import local_cloud


def test_one_process_can_have_one_cloud_after_the_other_each_with_its_own_tokens() -> None:
    for turn in range(2):
        with local_cloud("demo", ["runs/a"]):
            assert open_store("gs://demo/runs").create(f"turn-{turn}", b"made", timeout=5).size == 4
