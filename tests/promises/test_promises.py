"""What no VM may do, and what the operator is told when a run can't go on."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from agent.store import Forbidden, open_store
from infra.local.cloud import acting_as, local_cloud
from infra.local.metadata import MetadataServer
from tests.promises.world import ROOT, World

EXECUTING = {"pickle", "cloudpickle", "dill", "marshal", "shelve"}


def test_a_vms_identity_can_neither_overwrite_nor_delete_a_milestone() -> None:
    with (
        local_cloud("promise", ["runs/one"]) as cloud,
        MetadataServer(mint=cloud.mint) as metadata,
        acting_as(metadata),
    ):
        vm = open_store("gs://promise/runs/one")
        for name in ("milestones/1/part", "rolling/1/part", "line/1"):
            vm.create(name, b"precious", timeout=10.0)
        for name in ("milestones/1/part", "line/1"):
            with pytest.raises(Forbidden):
                vm.replace(name, b"other", timeout=10.0)
            with pytest.raises(Forbidden):
                vm.delete(name, timeout=10.0)
            assert vm.read(name, timeout=10.0) == b"precious"
        vm.delete("rolling/1/part", timeout=10.0)
        other_run = open_store("gs://promise/runs/two")
        other_run.create("rolling/1/part", b"precious", timeout=10.0)
        with pytest.raises(Forbidden):
            other_run.delete("rolling/1/part", timeout=10.0)


def test_nothing_that_reads_a_checkpoint_can_execute_one() -> None:
    examples = ROOT / "workloads/examples"  # other people's programs
    paths = [*(ROOT / "agent").rglob("*.py"), *(ROOT / "workloads").rglob("*.py")]
    for path in (path for path in paths if not path.is_relative_to(examples)):
        for node in ast.walk(ast.parse(path.read_text())):
            names: set[str] = set()
            if isinstance(node, ast.Import):
                names = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {(node.module or "").partition(".")[0]}
            assert not names & EXECUTING, f"{path}:{getattr(node, 'lineno', 0)} imports {names & EXECUTING}"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in {("torch", "load"), ("torch", "save")}, path


@pytest.mark.parametrize(
    ("bucket", "says", "status"),
    [
        ("gs://nowhere/runs", "bucket nowhere does not exist", 3),  # on every VM
        (
            "file:///proc/nowhere",
            "/proc/nowhere",
            1,
        ),  # no group, no other VM: again
    ],
)
def test_a_place_for_checkpoints_that_is_none_ends_the_agent_with_the_reason(
    world: World, bucket: str, says: str, status: int
) -> None:
    with world.fleet(bucket=bucket) as fleet:
        fleet.boot()
        assert fleet.wait_off(30.0) == status
        name = "gave_up" if status == 3 else "vm_unfit"
        assert says in fleet.wait_event(name, timeout=1).values["error"]


def test_a_run_file_with_a_mistake_ends_the_agent_before_it_starts_anything(world: World, tmp_path: Path) -> None:
    with world.fleet(every="10") as fleet:
        fleet.boot()
        assert fleet.wait_off(30.0) != 0  # the test agent does not map it
        output = (fleet.vm.disk / "agent.log").read_text()
        assert "checkpoint.every" in output
        assert ".yaml:" in output
