"""The bucket of runs: checkpoints, records, results, and the project's own code.

It has neither versions nor soft delete, on purpose. A run deletes its rolling checkpoints as it makes new ones: 100 GB
every ten minutes would be 100 TB in the seven days that Google keeps deleted objects by default, all of them billed.
What must last is guarded beforehand instead: VMs can neither delete nor overwrite it (infra/stacks/fleet/identity.py),
and no lifecycle rule that deletes can match it (lifecycle.py).
"""

from __future__ import annotations

from cdktn import ITerraformDependable, TerraformResourceLifecycle
from cdktn_provider_google.data_google_storage_project_service_account import DataGoogleStorageProjectServiceAccount
from cdktn_provider_google.kms_crypto_key_iam_member import KmsCryptoKeyIamMember
from cdktn_provider_google.storage_bucket import (
    StorageBucket,
    StorageBucketEncryption,
    StorageBucketSoftDeletePolicy,
    StorageBucketVersioning,
)
from constructs import Construct

from infra.stacks.deployment import Deployment
from infra.stacks.foundation.lifecycle import lifecycle_rules


def make_bucket(
    scope: Construct, *, deployment: Deployment, keep: bool, after: list[ITerraformDependable]
) -> StorageBucket:
    """The bucket, in the region of its VMs: a restore from elsewhere is slow and costs per GB.

    With `keep` Terraform refuses to destroy it, and to replace it where a run file names another region. Without,
    it is destroyed with everything in it.
    """
    key = deployment.cloud.kms_key
    before = [*after, _let_storage_use(scope, key=key, after=after)] if key else after
    return StorageBucket(
        scope,
        "bucket",
        name=deployment.bucket,
        location=deployment.region.upper(),
        storage_class="STANDARD",
        uniform_bucket_level_access=True,
        public_access_prevention="enforced",
        versioning=StorageBucketVersioning(enabled=False),
        soft_delete_policy=StorageBucketSoftDeletePolicy(retention_duration_seconds=0),
        encryption=StorageBucketEncryption(default_kms_key_name=key) if key else None,
        lifecycle_rule=lifecycle_rules(),
        force_destroy=not keep,
        lifecycle=TerraformResourceLifecycle(prevent_destroy=keep),
        depends_on=before,
    )


def _let_storage_use(scope: Construct, *, key: str, after: list[ITerraformDependable]) -> KmsCryptoKeyIamMember:
    """Cloud Storage encrypts as an account of its own in the project, which must be allowed to use the key first."""
    agent = DataGoogleStorageProjectServiceAccount(scope, "storage-agent", depends_on=after)
    return KmsCryptoKeyIamMember(
        scope,
        "storage-may-use-key",
        crypto_key_id=key,
        role="roles/cloudkms.cryptoKeyEncrypterDecrypter",
        member=f"serviceAccount:{agent.email_address}",
    )
