"""What the VMs of every example run file may do, from all of its stacks together."""

from __future__ import annotations

from infra.proof.iam import ACTIONS, deeds, may, places
from infra.proof.policy import Policy
from infra.stacks.deployment import Deployment
from tests.cloud.examples import Synthesized

EVERYTHING = {"create", "read", "list", "overwrite", "delete"}
ONCE = {"create", "read", "list"}


def allowed(place: str) -> set[str]:
    if place == "own rolling/":
        return EVERYTHING
    if place.startswith("own "):
        return ONCE
    return {"packages/": {"read"}, "data": {"read", "list"}}.get(place, set())


def test_a_vm_keeps_to_its_run(example: Synthesized) -> None:
    policy = Policy.of(example.stacks.values(), project=example.deployment.project)
    for run in example.deployment.run.experiments() or (example.deployment.run,):
        one = Deployment.of(run)
        vm, project = f"serviceAccount:{one.vm_email}", one.project
        for place, at in places(one).items():
            if place == "data" and not one.grants_data:
                continue  # its owner lets the VMs read it
            assert {action for action in ACTIONS if may(policy, vm, action, at, project=project)} == allowed(place), (
                place
            )
        done = {deed.what for deed in deeds(one) if policy.allows(vm, deed.permission, deed.to)}
        tracked = {"read the W&B key"} if one.run.tracking and one.run.tracking.wandb else set()
        assert done == {"resize a group", "write logs", "write metrics"} | tracked
