"""What an identity must be allowed to do, resource by resource, to apply a stack: make it, read it back, change it,
take it away. Owners may do all; continuous integration has a list of roles, which must be enough for every resource.

Source: the provider's own calls, recorded (each kind of resource with its paths), and the permissions that Compute
Engine's, Cloud Storage's and IAM's references give for those methods, read in November 2026.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from infra.operate.deploy import PROJECT_WIDE
from infra.proof.mistake import Mistake
from infra.proof.policy import Policy, Resource, known_text
from infra.stacks.continuous_integration.roles import ACCOUNT_ID

Json = dict[str, Any]


def _of(service: str, *deeds: str) -> tuple[str, ...]:
    return tuple(f"{service}.{deed}" for deed in deeds or ("create", "get", "update", "delete"))


_POLICY = ("getIamPolicy", "setIamPolicy")
_GROUP = (
    *_of("compute.instanceGroupManagers"),
    "compute.healthChecks.useReadOnly",
    "compute.instanceTemplates.useReadOnly",
    "compute.instances.create",
)

NEEDED: Mapping[str, tuple[str, ...]] = {
    "data.google_compute_image": ("compute.images.getFromFamily",),
    "data.google_project": ("resourcemanager.projects.get",),
    "google_billing_budget": (*_of("billing.budgets"), "serviceusage.services.use"),
    "google_compute_firewall": (
        *_of("compute.firewalls"), "compute.networks.updatePolicy", "compute.globalOperations.get",
    ),
    "google_compute_health_check": (*_of("compute.healthChecks"), "compute.globalOperations.get"),
    "google_compute_instance_group_manager": (*_GROUP, "compute.zoneOperations.get"),
    "google_compute_instance_template": (
        *_of("compute.instanceTemplates", "create", "get", "delete"),
        "compute.disks.create",
        "compute.globalOperations.get",
        "compute.subnetworks.use",
        "compute.subnetworks.useExternalIp",
        "compute.zones.list",
    ),
    "google_compute_region_instance_group_manager": (*_GROUP, "compute.regionOperations.get"),
    "google_logging_metric": _of("logging.logMetrics"),
    "google_monitoring_alert_policy": _of("monitoring.alertPolicies"),
    "google_monitoring_dashboard": _of("monitoring.dashboards"),
    "google_monitoring_notification_channel": _of("monitoring.notificationChannels"),
    "google_project_iam_member": ("resourcemanager.projects.get", *_of("resourcemanager.projects", *_POLICY)),
    "google_secret_manager_secret_iam_member": _of("secretmanager.secrets", *_POLICY),
    "google_service_account": _of("iam.serviceAccounts"),
    "google_service_account_iam_member": _of("iam.serviceAccounts", *_POLICY),
    "google_storage_bucket_iam_member": _of("storage.buckets", *_POLICY),
    "google_storage_bucket_object": _of("storage.objects", "create", "get", "delete"),
}  # fmt: skip
"""By type, `data.` before those that are only read."""

OPERATED: Mapping[str, tuple[str, ...]] = {
    "google_compute_instance_group_manager": (
        *_of("compute.instanceGroupManagers", "get", "list", "update"),
        "compute.zoneOperations.get",
    ),
    "google_compute_region_instance_group_manager": (
        *_of("compute.instanceGroupManagers", "get", "list", "update"),
        "compute.regionOperations.get",
    ),
}
"""What `spot start`, `stop` and `status` do with a group: gcloud waits for the operation that it has begun."""

ACTS_AS = frozenset(
    {
        "google_compute_instance_template",
        "google_compute_instance_group_manager",
        "google_compute_region_instance_group_manager",
    }
)
"""Who makes these must be allowed to act as the VMs."""


def mistakes(stacks: Mapping[str, Json]) -> Iterator[Mistake]:
    """What continuous integration could not do of a run's own stacks, where a repository deploys, and operators of its
    groups."""
    project = next((stack["provider"]["google"][0].get("project", "") for stack in stacks.values()), "")
    policy = Policy.of(stacks.values(), project=project)
    operators = {grant.member for grant in policy.grants if grant.role.endswith(".operate")}
    for stack, synthesized in stacks.items():
        for of_type, needed in OPERATED.items():
            for name in synthesized.get("resource", {}).get(of_type, {}):
                at = _resource(of_type, {}, {}, project=project)
                for operator in sorted(operators):
                    lacking = [one for one in needed if not policy.allows(operator, one, at, surely=True)]
                    if lacking:
                        reason = f"{operator}, an operator, lacks {', '.join(lacking)}"
                        fix = "write it into infra/stacks/foundation/roles.py"
                        yield Mistake(stack=stack, path=f"{of_type}.{name}", reason=reason, fix=fix)
    if "continuous-integration" in stacks:
        yield from _deployed(stacks, policy, project=project)


def _deployed(stacks: Mapping[str, Json], policy: Policy, *, project: str) -> Iterator[Mistake]:
    member = f"serviceAccount:{ACCOUNT_ID}@{project}.iam.gserviceaccount.com"
    for stack, synthesized in stacks.items():
        if stack in PROJECT_WIDE:
            continue
        resources = synthesized.get("resource", {})
        for kind, start in (("resource", ""), ("data", "data.")):
            for of_type, named in synthesized.get(kind, {}).items():
                for name, body in named.items():
                    path = f"{start}{of_type}.{name}"
                    if (needed := NEEDED.get(f"{start}{of_type}")) is None:
                        fix = "write it into infra/proof/applies.py"
                        yield Mistake(stack=stack, path=path, reason="nobody says what it takes to apply it", fix=fix)
                        continue
                    at = _resource(of_type, body, resources, project=project)
                    accounts = [_account(email, project) for email in _vms(stacks, project) if of_type in ACTS_AS]
                    asked = [(permission, at) for permission in needed]
                    asked += [("iam.serviceAccounts.actAs", account) for account in accounts]
                    for permission, where in asked:
                        if not policy.allows(member, permission, where, surely=True):
                            reason = f"{member} lacks {permission}"
                            fix = "add a role to infra/stacks/continuous_integration/roles.py, or leave it to an owner"
                            yield Mistake(stack=stack, path=path, reason=reason, fix=fix)


def _vms(stacks: Mapping[str, Json], project: str) -> list[str]:
    return [
        f"{account['account_id']}@{project}.iam.gserviceaccount.com"
        for stack in stacks.values()
        for account in stack.get("resource", {}).get("google_service_account", {}).values()
        if account["account_id"] != ACCOUNT_ID
    ]


def _account(email: str, project: str) -> Resource:
    return Resource(
        name=f"projects/-/serviceAccounts/{email}",
        kind="iam.googleapis.com/ServiceAccount",
        within=(("account", email), ("project", project)),
    )


def _resource(of_type: str, body: Json, resources: Mapping[str, Mapping[str, Json]], *, project: str) -> Resource:
    """What is asked for when such a resource is made: itself, or what it is in."""

    def said(attribute: str) -> str:
        return known_text(body[attribute], resources, project=project)

    anywhere = (("project", project),)
    if of_type in ("google_storage_bucket_iam_member", "google_storage_bucket_object"):
        bucket = f"projects/_/buckets/{said('bucket')}"
        within = (("bucket", said("bucket")), *anywhere)
        if of_type == "google_storage_bucket_object":
            return Resource(
                name=f"{bucket}/objects/{said('name')}", kind="storage.googleapis.com/Object", within=within
            )
        # A bucket that no stack makes may be another project's: only a grant on itself counts.
        return Resource(name=bucket, kind="storage.googleapis.com/Bucket", within=within[:1])
    if of_type == "google_service_account_iam_member":
        return _account(said("service_account_id").rpartition("/")[2], project)
    if of_type == "google_secret_manager_secret_iam_member":
        secret = said("secret_id").rpartition("/")[2]
        name = f"projects/{project}/secrets/{secret}"
        return Resource(name=name, kind="secretmanager.googleapis.com/Secret", within=(("secret", secret), *anywhere))
    if of_type == "google_billing_budget":
        return Resource(
            name="", kind="billing.googleapis.com/Budget", within=(("billing", body["billing_account"]), *anywhere)
        )
    if of_type == "google_compute_firewall":
        name = f"projects/{project}/global/firewalls/{said('name')}"
        return Resource(name=name, kind="compute.googleapis.com/Firewall", within=anywhere)
    attributes = {"iam.googleapis.com/modifiedGrantsByRole": (said("role"),)} if "role" in body else {}
    kind = "cloudresourcemanager.googleapis.com/Project"
    return Resource(name=f"projects/{project}", kind=kind, within=anywhere, attributes=attributes)
