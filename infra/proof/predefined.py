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


def permits(role: str, permission: str) -> bool:
    """Whether one of Google's roles has `permission`. Raises NotDeployable where the role is not written down here."""
    if role not in PERMISSIONS:
        raise NotDeployable(
            f"nobody has looked at what {role} allows\n    fix: write its permissions into infra/proof/predefined.py"
        )
    return any(fnmatchcase(permission, pattern) for pattern in PERMISSIONS[role])
