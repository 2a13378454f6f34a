"""What the end of a run promises of instance groups, against a server with tokens, permissions and faults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from agent.vm.group import Finish, GroupError, Groups
from infra.local.compute import READ, UPDATE, ComputeServer, InstanceGroup, ManagedInstance

PATH = "projects/p/regions/r/instanceGroupManagers/g"


@pytest.fixture
def compute() -> Iterator[ComputeServer]:
    with ComputeServer(identify={"good": "vm"}.get) as server:
        server.allow("vm", READ, PATH)
        server.allow("vm", UPDATE, PATH)
        yield server


@pytest.fixture
def group(compute: ComputeServer) -> InstanceGroup:
    return compute.add_group(PATH, target_size=1)


def groups(compute: ComputeServer, *tokens: str) -> Groups:
    """Groups whose metadata server hands out these tokens, the last one for ever."""
    left = list(tokens or ["good"])

    async def ask(_path: str) -> str:
        return json.dumps({"access_token": left.pop(0) if len(left) > 1 else left[0]})

    return Groups(ask, base=compute.url)


def test_it_asks_again_where_the_service_is_away_or_a_token_has_expired(
    compute: ComputeServer, group: InstanceGroup
) -> None:
    compute.fail_next(HTTPStatus.SERVICE_UNAVAILABLE)
    asyncio.run(groups(compute, "expired", "expired", "good").resize(PATH, 0, deadline_s=10.0))
    assert group.target_size == 0
    assert len({path for _, method, path in compute.requests if method == "POST"}) == 1, "under one request id"


def test_it_gives_up_at_its_deadline_and_says_what_the_last_answer_was(
    compute: ComputeServer, group: InstanceGroup
) -> None:
    compute.fail_next(*[HTTPStatus.SERVICE_UNAVAILABLE] * 50)
    with pytest.raises(GroupError, match=r"not done within 0\.8 s: HTTP 503"):
        asyncio.run(groups(compute).resize(PATH, 0, deadline_s=0.8))
    assert group.target_size == 1


def test_what_is_forbidden_or_not_there_is_asked_once(compute: ComputeServer, group: InstanceGroup) -> None:
    other = "projects/p/zones/z/instanceGroupManagers/other"
    with pytest.raises(GroupError, match="HTTP 404"):
        asyncio.run(groups(compute).resize(other, 0))
    compute.add_group(other, target_size=1)
    with pytest.raises(GroupError, match=r"compute\.instanceGroupManagers\.update"):
        asyncio.run(groups(compute).resize(other, 0))
    assert len(compute.requests) == 2
    assert group.target_size == 1


@pytest.mark.parametrize(
    "attributes",
    [{"spot-group": "g"}, {"spot-group": PATH, "spot-next-group": "../x"}, {"spot-group": PATH, "spot-next-size": "0"}],
)
def test_metadata_that_names_no_group_or_no_size_is_refused(attributes: dict[str, str]) -> None:
    with pytest.raises(GroupError, match="spot-"):
        Finish.of(attributes)


def test_a_vm_of_no_group_has_nothing_to_finish() -> None:
    assert Finish.of({"spot-run": "..."}) is None


def test_a_controller_sees_what_is_wanted_and_shows_what_there_is(compute: ComputeServer, group: InstanceGroup) -> None:
    import httpx2

    vm = ManagedInstance("g-0", status="RUNNING", action="NONE")
    compute.change(lambda: group.instances.update({"g-0": vm}))
    with httpx2.Client(base_url=f"{compute.url}/compute/v1/{PATH}", headers={"authorization": "Bearer good"}) as client:
        assert client.get("").json()["status"] == {"isStable": True}
        listed = client.post("/listManagedInstances").json()["managedInstances"]
        assert [(one["name"], one["instanceStatus"]) for one in listed] == [("g-0", "RUNNING")]
        body = {"instances": [listed[0]["instance"]]}
        for _ in range(2):
            assert client.post("/recreateInstances?requestId=1", json=body).json()["status"] == "DONE"
        assert group.recreate == ["g-0"], "asked twice under one id, it is done once"
        gone = client.post("/recreateInstances", json={"instances": ["zones/z/instances/g-9"]})
        assert gone.status_code == 400
        assert client.get("/listErrors").json() == {"items": []}
        assert client.get("", headers={"authorization": "Bearer other"}).status_code == 401
    assert compute.wait_for(lambda: len(compute.requests) == 7, 1.0)
