"""What Google's own roles allow, of those that the stacks hand out.

Source: https://cloud.google.com/iam/docs/roles-permissions, read in November 2026. Small roles are whole. Of large ones
the patterns say at least what the role allows, so that an answer "denied" holds: `*` stands for any text.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from infra.stacks.deployment import NotDeployable

_SEE_PROJECT = ("resourcemanager.projects.get", "resourcemanager.projects.list")

PERMISSIONS: dict[str, tuple[str, ...]] = {
    "roles/cloudkms.cryptoKeyEncrypterDecrypter": (
        "cloudkms.cryptoKeyVersions.useToDecrypt",
        "cloudkms.cryptoKeyVersions.useToEncrypt",
        "cloudkms.locations.*",
        "resourcemanager.projects.get",
    ),
    "roles/compute.osAdminLogin": (
        *_SEE_PROJECT,
        "compute.*.listEffectiveTags",
        "compute.*.listTagBindings",
        "compute.instances.get",
        "compute.instances.list",
        "compute.instances.osAdminLogin",
        "compute.instances.osLogin",
        "compute.projects.get",
        "serviceusage.quotas.get",
        "serviceusage.services.get",
        "serviceusage.services.list",
    ),
    "roles/iam.serviceAccountUser": (
        *_SEE_PROJECT,
        "iam.serviceAccounts.actAs",
        "iam.serviceAccounts.get",
        "iam.serviceAccounts.list",
    ),
    "roles/iam.workloadIdentityUser": (
        "iam.serviceAccounts.get",
        "iam.serviceAccounts.getAccessToken",
        "iam.serviceAccounts.getOpenIdToken",
        "iam.serviceAccounts.list",
    ),
    "roles/iap.tunnelResourceAccessor": ("iap.tunnelDestGroups.accessViaIAP", "iap.tunnelInstances.accessViaIAP"),
    "roles/logging.logWriter": ("logging.logEntries.create",),
    "roles/logging.viewer": (
        "logging.*.get",
        "logging.*.list",
        "logging.queries.*",
        "resourcemanager.projects.get",
    ),
    "roles/monitoring.metricWriter": (
        "monitoring.metricDescriptors.create",
        "monitoring.metricDescriptors.get",
        "monitoring.metricDescriptors.list",
        "monitoring.monitoredResourceDescriptors.get",
        "monitoring.monitoredResourceDescriptors.list",
        "monitoring.timeSeries.create",
    ),
    "roles/secretmanager.secretAccessor": (*_SEE_PROJECT, "secretmanager.versions.access"),
    "roles/secretmanager.secretVersionAdder": (*_SEE_PROJECT, "secretmanager.versions.add"),
    "roles/storage.objectCreator": (
        *_SEE_PROJECT,
        "orgpolicy.policy.get",
        "storage.folders.create",
        "storage.managedFolders.create",
        "storage.multipartUploads.abort",
        "storage.multipartUploads.create",
        "storage.multipartUploads.listParts",
        "storage.objects.create",
        "storage.objects.createContext",
    ),
    "roles/storage.objectViewer": (
        *_SEE_PROJECT,
        "storage.folders.get",
        "storage.folders.list",
        "storage.managedFolders.get",
        "storage.managedFolders.list",
        "storage.objects.get",
        "storage.objects.list",
    ),
    # What continuous integration builds a run's stacks with.
    "roles/billing.costsManager": ("billing.*",),
    "roles/browser": (
        *_SEE_PROJECT,
        "resourcemanager.*.get",
        "resourcemanager.*.getIamPolicy",
        "resourcemanager.*.list",
    ),
    "roles/compute.instanceAdmin.v1": ("compute.instance*", "compute.disks.*", "compute.images.*", "compute.*.use*"),
    "roles/compute.loadBalancerAdmin": ("compute.*ealthChecks.*", "compute.instanceGroups.*", "compute.*.get", "*.use"),
    "roles/iam.serviceAccountAdmin": (
        *_SEE_PROJECT,
        *(
            f"iam.serviceAccounts.{deed}"
            for deed in ("create*", "delete*", "disable", "enable", "get", "getIamPolicy", "list*", "setIamPolicy")
        ),
        "iam.serviceAccounts.undelete",
        "iam.serviceAccounts.update",
    ),
    "roles/logging.configWriter": ("logging.buckets.*", "logging.exclusions.*", "logging.logMetrics.*", "logging.*s.*"),
    "roles/monitoring.editor": ("monitoring.*",),
    "roles/resourcemanager.projectIamAdmin": (*_SEE_PROJECT, "resourcemanager.projects.*IamPolicy"),
    "roles/secretmanager.admin": ("secretmanager.*",),
    "roles/serviceusage.serviceUsageConsumer": ("serviceusage.services.[glu]*", "serviceusage.quotas.get"),
    "roles/storage.admin": ("storage.*", "orgpolicy.policy.get"),
    "roles/storage.legacyBucketReader": (
        "storage.buckets.get",
        "storage.managedFolders.*",
        "storage.multipartUploads.list",
        "storage.objects.list",
    ),
    "roles/storage.objectAdmin": (*_SEE_PROJECT, "storage.folders.*", "storage.managedFolders.*", "storage.objects.*"),
}


SURELY: dict[str, frozenset[str]] = {
    "roles/billing.costsManager": frozenset(
        {
            "billing.budgets.create",
            "billing.budgets.delete",
            "billing.budgets.get",
            "billing.budgets.update",
        }
    ),
    "roles/browser": frozenset(
        {
            "resourcemanager.projects.get",
        }
    ),
    "roles/compute.instanceAdmin.v1": frozenset(
        {
            "compute.disks.create",
            "compute.globalOperations.get",
            "compute.images.getFromFamily",
            "compute.instanceGroupManagers.create",
            "compute.instanceGroupManagers.delete",
            "compute.instanceGroupManagers.get",
            "compute.instanceGroupManagers.update",
            "compute.instanceTemplates.create",
            "compute.instanceTemplates.delete",
            "compute.instanceTemplates.get",
            "compute.instanceTemplates.useReadOnly",
            "compute.instances.create",
            "compute.projects.get",
            "compute.regionOperations.get",
            "compute.subnetworks.use",
            "compute.subnetworks.useExternalIp",
            "compute.zoneOperations.get",
            "compute.zones.list",
        }
    ),
    "roles/compute.loadBalancerAdmin": frozenset(
        {
            "compute.globalOperations.get",
            "compute.healthChecks.create",
            "compute.healthChecks.delete",
            "compute.healthChecks.get",
            "compute.healthChecks.update",
            "compute.healthChecks.useReadOnly",
        }
    ),
    "roles/iam.serviceAccountAdmin": frozenset(
        {
            "iam.serviceAccounts.create",
            "iam.serviceAccounts.delete",
            "iam.serviceAccounts.get",
            "iam.serviceAccounts.getIamPolicy",
            "iam.serviceAccounts.setIamPolicy",
            "iam.serviceAccounts.update",
        }
    ),
    "roles/iam.serviceAccountUser": frozenset(
        {
            "iam.serviceAccounts.actAs",
        }
    ),
    "roles/logging.configWriter": frozenset(
        {
            "logging.logMetrics.create",
            "logging.logMetrics.delete",
            "logging.logMetrics.get",
            "logging.logMetrics.update",
        }
    ),
    "roles/monitoring.editor": frozenset(
        {
            "monitoring.alertPolicies.create",
            "monitoring.alertPolicies.delete",
            "monitoring.alertPolicies.get",
            "monitoring.alertPolicies.update",
            "monitoring.dashboards.create",
            "monitoring.dashboards.delete",
            "monitoring.dashboards.get",
            "monitoring.dashboards.update",
            "monitoring.notificationChannels.create",
            "monitoring.notificationChannels.delete",
            "monitoring.notificationChannels.get",
            "monitoring.notificationChannels.update",
        }
    ),
    "roles/resourcemanager.projectIamAdmin": frozenset(
        {
            "resourcemanager.projects.get",
            "resourcemanager.projects.getIamPolicy",
            "resourcemanager.projects.setIamPolicy",
        }
    ),
    "roles/secretmanager.admin": frozenset(
        {
            "secretmanager.secrets.getIamPolicy",
            "secretmanager.secrets.setIamPolicy",
        }
    ),
    "roles/serviceusage.serviceUsageConsumer": frozenset(
        {
            "serviceusage.services.get",
            "serviceusage.services.list",
            "serviceusage.services.use",
        }
    ),
    "roles/storage.admin": frozenset(
        {
            "storage.buckets.get",
            "storage.buckets.getIamPolicy",
            "storage.buckets.setIamPolicy",
            "storage.objects.create",
            "storage.objects.delete",
            "storage.objects.get",
        }
    ),
}
"""Of the roles that somebody applies stacks with: what they allow of what that takes (infra/proof/applies.py). Each was
found in a list of the role's permissions as of August 2026."""


def permits(role: str, permission: str, *, surely: bool = False) -> bool:
    """Whether one of Google's roles has `permission`. Raises NotDeployable where the role is not written down here."""
    if surely:
        return permission in SURELY.get(role, ())
    if role not in PERMISSIONS:
        raise NotDeployable(
            f"nobody has looked at what {role} allows\n    fix: write its permissions into infra/proof/predefined.py"
        )
    return any(fnmatchcase(permission, pattern) for pattern in PERMISSIONS[role])
