"""IAM as a table: each identity, each action, each prefix; allowed or not, as the synthesized policies have it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agent.store.names import BOOTS, EVENTS, HOURS, LINE, METRICS, MILESTONES, RESULTS, ROLLING
from infra.proof.policy import Policy, Resource
from infra.stacks.conditions import LIST_PREFIX
from infra.stacks.deployment import EXPIRED, PACKAGES, Deployment
from infra.stacks.fleet.roles import IN_PROJECT

ACTIONS: Mapping[str, tuple[str, ...]] = {
    "create": ("storage.objects.create",),
    "read": ("storage.objects.get",),
    "list": ("storage.objects.list",),
    "overwrite": ("storage.objects.create", "storage.objects.delete"),
    "delete": ("storage.objects.delete",),
    "change": ("storage.objects.update",),
}
"""What can be done with objects, and all that it takes. `change` is of metadata: storage class, holds, Custom-Time."""

OWN = (ROLLING, MILESTONES, RESULTS, METRICS, EVENTS, HOURS, LINE, BOOTS)
"""What a run has below its prefix."""


@dataclass(frozen=True, kw_only=True)
class Deed:
    """Anything but objects: what is done, and to what."""

    what: str
    permission: str
    to: Resource


def read_policy(out: Path, *, project: str) -> Policy:
    """The policy of all stacks below `out`, where the app was synthesized to."""
    return Policy.of(
        (json.loads(path.read_text()) for path in sorted(out.glob("stacks/*/cdk.tf.json"))), project=project
    )


def places(deployment: Deployment) -> dict[str, tuple[str, str]]:
    """Bucket and prefix of everything that objects are in, by what it is called in the table."""
    bucket, run = deployment.bucket, deployment.prefix
    own = {f"own {area}": (bucket, f"{run}/{area}") for area in OWN}
    others = {
        "run of a like name": (bucket, f"{run}-2/{ROLLING}"),
        "another run": (bucket, f"{run.rpartition('/')[0]}/another-run/{MILESTONES}".lstrip("/")),
        PACKAGES: (bucket, PACKAGES),
        EXPIRED: (bucket, EXPIRED),
        "the whole bucket": (bucket, ""),
        "Terraform's state": (deployment.state_bucket, ""),
    }
    data = deployment.run.data
    if data is not None and data.source.startswith("gs://"):
        source, _, folder = data.source.removeprefix("gs://").partition("/")
        others |= {"data": (source, f"{folder}/".lstrip("/")), "beside the data": (source, "another-folder/")}
    return own | others


def may(policy: Policy, member: str, action: str, place: tuple[str, str], *, project: str) -> bool:
    """Whether `member` may do `action` to an object at `place`, or, for a listing, ask for that prefix."""
    bucket, prefix = place
    holder = f"projects/_/buckets/{bucket}"
    within = (("bucket", bucket), ("project", project))
    at = (
        Resource(name=holder, kind="storage.googleapis.com/Bucket", within=within, attributes={LIST_PREFIX: prefix})
        if action == "list"
        else Resource(
            name=f"{holder}/objects/{prefix}{'' if prefix.endswith('.json') else 'x'}",
            kind="storage.googleapis.com/Object",
            within=within,
        )
    )
    return all(policy.allows(member, permission, at) for permission in ACTIONS[action])


def deeds(deployment: Deployment) -> list[Deed]:
    """What else there is to do."""
    project = deployment.project
    anywhere = (("project", project),)
    bucket = Resource(
        name=f"projects/_/buckets/{deployment.bucket}",
        kind="storage.googleapis.com/Bucket",
        within=(("bucket", deployment.bucket), *anywhere),
    )
    secret = Resource(
        name=f"{deployment.wandb_secret}/versions/1",
        kind="secretmanager.googleapis.com/SecretVersion",
        within=(("secret", deployment.wandb_secret_id), *anywhere),
    )
    itself = Resource(name=f"projects/{project}", kind="cloudresourcemanager.googleapis.com/Project", within=anywhere)
    account = Resource(
        name=f"projects/-/serviceAccounts/{deployment.vm_email}",
        kind="iam.googleapis.com/ServiceAccount",
        within=(("account", deployment.vm_email), *anywhere),
    )

    group = Resource(
        name=f"projects/{project}/zones/{deployment.region}-a/instanceGroupManagers/some-group",
        kind="compute.googleapis.com/InstanceGroupManager",
        within=anywhere,
    )

    def tunnel(port: int) -> Resource:
        return Resource(name="", kind="iap.googleapis.com/TunnelInstance", within=anywhere, port=port)

    def handing_out(*roles: str) -> Resource:
        return replace(itself, attributes={"iam.googleapis.com/modifiedGrantsByRole": roles})

    resize, set_policy = "compute.instanceGroupManagers.update", "resourcemanager.projects.setIamPolicy"
    return [
        Deed(what="resize a group", permission=resize, to=group),
        Deed(what="list groups", permission="compute.instanceGroupManagers.list", to=group),
        Deed(what="make a VM", permission="compute.instances.create", to=itself),
        Deed(what="delete a VM", permission="compute.instances.delete", to=itself),
        Deed(what="rehearse a preemption", permission="compute.instances.simulateMaintenanceEvent", to=itself),
        Deed(what="tunnel to SSH", permission="iap.tunnelInstances.accessViaIAP", to=tunnel(22)),
        Deed(what="tunnel to another port", permission="iap.tunnelInstances.accessViaIAP", to=tunnel(9620)),
        Deed(what="log in as root", permission="compute.instances.osAdminLogin", to=itself),
        Deed(what="act as the VMs", permission="iam.serviceAccounts.actAs", to=account),
        Deed(what="be the VMs elsewhere", permission="iam.serviceAccounts.getAccessToken", to=account),
        Deed(what="make a key of the VMs'", permission="iam.serviceAccountKeys.create", to=account),
        Deed(what="write logs", permission="logging.logEntries.create", to=itself),
        Deed(what="read logs", permission="logging.logEntries.list", to=itself),
        Deed(what="write metrics", permission="monitoring.timeSeries.create", to=itself),
        Deed(what="read the W&B key", permission="secretmanager.versions.access", to=secret),
        Deed(what="set the W&B key", permission="secretmanager.versions.add", to=secret),
        Deed(what="see the bucket's settings", permission="storage.buckets.get", to=bucket),
        Deed(what="change the bucket's settings", permission="storage.buckets.update", to=bucket),
        Deed(what="change the bucket's policy", permission="storage.buckets.setIamPolicy", to=bucket),
        Deed(
            what="hand out the VMs' roles",
            permission=set_policy,
            to=handing_out(*IN_PROJECT, deployment.role("resize")),
        ),
        Deed(what="hand out ownership", permission=set_policy, to=handing_out("roles/owner")),
        Deed(what="change a role", permission="iam.roles.update", to=itself),
    ]


def draw_iam(policy: Policy, deployment: Deployment) -> RenderableType:
    """A table of objects by place and action for each identity, and one of everything else."""
    members = sorted({grant.member for grant in policy.grants})
    tables = []
    for member in members:
        objects = Table(title=member, title_justify="left")
        objects.add_column("objects in")
        for action in ACTIONS:
            objects.add_column(action, justify="center")
        for place, at in places(deployment).items():
            answers = [may(policy, member, action, at, project=deployment.project) for action in ACTIONS]
            objects.add_row(place, *map(_mark, answers))
        tables.append(objects)
    rest = Table(title="Everything else", title_justify="left")
    rest.add_column("what")
    for member in members:
        rest.add_column(member, justify="center")
    for deed in deeds(deployment):
        rest.add_row(deed.what, *(_mark(policy.allows(member, deed.permission, deed.to)) for member in members))
    return Group(*tables, rest)


def _mark(allowed: bool) -> Text:
    return Text("yes", style="green") if allowed else Text("-", style="dim")
