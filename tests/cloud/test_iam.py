"""Who may do what: every identity, every action, every prefix, from the policies that Terraform would set."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.proof.iam import ACTIONS, deeds, draw_iam, may, places
from infra.proof.policy import Policy
from infra.stacks.deployment import NotDeployable
from tests.cloud.grants import ALPHA, BETA, PROJECT, Json, deployment, policy_of, synthesize_grants

RUN = deployment(ALPHA)
VM = f"serviceAccount:spot-alpha@{PROJECT}.iam.gserviceaccount.com"
OTHER_VM = f"serviceAccount:spot-beta@{PROJECT}.iam.gserviceaccount.com"
OPERATOR = "user:ann@example.org"
CI = f"serviceAccount:spot-training-ci@{PROJECT}.iam.gserviceaccount.com"

OBJECTS = """
                     VM                          another run's VM   operator
own rolling/         create read list overwrite delete   -          read list
own milestones/      create read list                    -          read list
own results/         create read list                    -          read list
own metrics/         create read list                    -          read list
own events/          create read list                    -          read list
own hours/           create read list                    -          read list
own line/            create read list                    -          read list
own boots/           create read list                    -          read list
run of a like name   -                                   -          read list
another run          -                                   -          read list
packages/            read                                read       create read list
expired/             -                                   -          read list
the whole bucket     -                                   -          read list
Terraform's state    -                                   -          -
data                 read list                           -          read list
beside the data      -                                   -          read list
"""
"""What each may do to objects. Columns are two spaces or more apart; what is not written is denied."""

DEEDS = {
    VM: {"resize a group", "write logs", "write metrics", "read the W&B key"},
    OTHER_VM: {"resize a group", "write logs", "write metrics"},
    OPERATOR: {
        "resize a group",
        "list groups",
        "rehearse a preemption",
        "tunnel to SSH",
        "log in as root",
        "act as the VMs",
        "read logs",
        "set the W&B key",
    },
}


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Json]:
    return synthesize_grants(tmp_path_factory.mktemp("grants"), alpha=RUN, beta=deployment(BETA))


@pytest.fixture(scope="module")
def policy(stacks: dict[str, Json]) -> Policy:
    return policy_of(stacks)


def expected() -> list[tuple[str, str, set[str]]]:
    """(member, place, actions) of `OBJECTS`."""
    import re

    rows = [re.split(r"\s{2,}", line.strip()) for line in OBJECTS.strip().splitlines()[1:]]
    return [
        (member, row[0], set(cell.split()) - {"-"})
        for row in rows
        for member, cell in zip((VM, OTHER_VM, OPERATOR), row[1:], strict=True)
    ]


@pytest.mark.parametrize(("member", "place", "allowed"), expected())
def test_objects(policy: Policy, member: str, place: str, allowed: set[str]) -> None:
    at = places(RUN)[place]
    assert {action for action in ACTIONS if may(policy, member, action, at, project=PROJECT)} == allowed


def test_the_table_leaves_no_place_out() -> None:
    assert {place for _, place, _ in expected()} == set(places(RUN))


@pytest.mark.parametrize("member", DEEDS)
def test_everything_else(policy: Policy, member: str) -> None:
    done = {deed.what for deed in deeds(RUN) if policy.allows(member, deed.permission, deed.to)}
    assert done == DEEDS[member]


def test_ci_deploys_and_can_give_nobody_more_than_the_stacks_do(policy: Policy) -> None:
    done = {deed.what for deed in deeds(RUN) if policy.allows(CI, deed.permission, deed.to)}
    assert {"make a VM", "act as the VMs", "change the bucket's settings", "hand out the VMs' roles"} <= done
    refused = {"hand out ownership", "change a role", "be the VMs elsewhere", "make a key of the VMs'", "tunnel to SSH"}
    assert not refused & done


def test_whoever_is_granted_something_is_in_the_tables(policy: Policy) -> None:
    repository = {grant.member for grant in policy.grants if grant.member.startswith("principalSet:")}
    assert {grant.member for grant in policy.grants} == {VM, OTHER_VM, OPERATOR, CI} | repository
    assert {grant.on[0] for grant in policy.grants if grant.member in repository} == {"account"}


def test_no_grant_is_to_everybody(policy: Policy) -> None:
    assert not [grant for grant in policy.grants if grant.member.startswith("all")]


def test_a_run_reads_no_secret_without_tracking_and_another_run_where_its_model_starts_from_that(
    tmp_path: Path,
) -> None:
    quiet = deployment(
        ALPHA.replace("tracking: {wandb: {project: spots}}", "").replace(
            "Qwen3-0.6B}", "Qwen3-0.6B, from: gs://some-runs/team/another-run@500}"
        )
    )
    policy = policy_of(synthesize_grants(tmp_path, alpha=quiet, beta=deployment(BETA)))
    (read,) = (deed for deed in deeds(quiet) if deed.what == "read the W&B key")
    assert not policy.allows(VM, read.permission, read.to)
    rights = {
        place: {action for action in ACTIONS if may(policy, VM, action, at, project=PROJECT)}
        for place, at in places(quiet).items()
    }
    assert rights["another run"] == {"read", "list"}
    assert rights["run of a like name"] == set()


def test_the_printed_table_says_what_the_policy_says(policy: Policy) -> None:
    from rich.console import Console

    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(draw_iam(policy, RUN))
    lines = console.export_text().split(VM, 1)[1].splitlines()
    milestones = next(line for line in lines if "own milestones/" in line)
    assert [cell.strip() for cell in milestones.split("│")[2:-1]] == ["yes", "yes", "yes", "-", "-", "-"]


def test_a_condition_on_a_name_that_iam_is_not_told_never_holds() -> None:
    """An instance group has none. With such a condition a run could never have taken its group to zero."""
    (resize,) = (deed for deed in deeds(RUN) if deed.what == "resize a group")
    for condition in (f'resource.name.endsWith("{resize.to.name[-20:]}")', f'resource.name == "{resize.to.name}"'):
        written = {"project": PROJECT, "role": "roles/compute.instanceAdmin.v1", "member": VM}
        stack = granting("google_project_iam_member", **written, condition={"title": "own", "expression": condition})
        assert not Policy.of([stack], project=PROJECT).allows(VM, resize.permission, resize.to)
    stack = granting("google_project_iam_member", **written)
    assert Policy.of([stack], project=PROJECT).allows(VM, resize.permission, resize.to)


def granting(kind: str, **attributes: object) -> Json:
    return {"resource": {kind: {"one": attributes}}}


@pytest.mark.parametrize(
    ("stack", "said"),
    [
        (granting("google_project_iam_binding", role="roles/owner", members=[]), "use google_*_iam_member"),
        (granting("google_storage_bucket_iam_policy", bucket="b", policy_data=""), "use google_*_iam_member"),
        (granting("google_storage_bucket_acl", bucket="b"), "use google_*_iam_member"),
        (granting("google_folder_iam_member", folder="f", role="r", member="m"), "use google_*_iam_member"),
        (
            granting("google_project_iam_member", project="p", role="roles/viewer", member="${google_x.y.member}"),
            "nothing is known",
        ),
    ],
)
def test_rights_that_nobody_looks_at_are_refused(stack: Json, said: str) -> None:
    with pytest.raises(NotDeployable, match=said.replace("*", r"\*")):
        Policy.of([stack], project=PROJECT)


@pytest.mark.parametrize(
    ("role", "condition", "said"),
    [
        ("roles/editor", None, "nobody has looked at what roles/editor allows"),
        (f"projects/{PROJECT}/roles/unheard", None, "no stack makes it"),
        ("roles/storage.admin", 'resource.name.startWith("a")', "not understood"),
        ("roles/storage.admin", 'request.time < timestamp("2030-01-01T00:00:00Z")', "not understood"),
        ("roles/storage.admin", "resource.name", "no yes or no"),
        ("roles/storage.admin", 'resource.nmae == "a"', "no yes or no"),
    ],
)
def test_what_is_not_understood_is_refused(role: str, condition: str | None, said: str) -> None:
    written = {"project": PROJECT, "role": role, "member": VM}
    if condition:
        written |= {"condition": {"title": "some", "expression": condition}}  # type: ignore[dict-item]
    policy = Policy.of([granting("google_project_iam_member", **written)], project=PROJECT)
    with pytest.raises(NotDeployable, match=said):
        may(policy, VM, "read", places(RUN)["packages/"], project=PROJECT)
