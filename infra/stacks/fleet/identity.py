"""Who a run's VMs are, and what that identity may do: as little as trains a run.

In the bucket it creates and reads below PREFIX/RUN_ID/, and deletes below rolling/ only. Overwriting needs
storage.objects.delete too, so what it has written to milestones/, results/, metrics/, events/, environments/ and line/
stays as written, whoever takes over a VM. Uploads need `create`, downloads and the source of a copy `get`, a copy's
target `create`, all of them create-only; nothing of the agent's asks for the bucket's own metadata.
"""

from __future__ import annotations

from cdktn import ITerraformDependable
from cdktn_provider_google.compute_firewall import ComputeFirewall, ComputeFirewallAllow
from cdktn_provider_google.project_iam_member import ProjectIamMember
from cdktn_provider_google.secret_manager_secret_iam_member import SecretManagerSecretIamMember
from cdktn_provider_google.service_account import ServiceAccount
from cdktn_provider_google.service_account_iam_member import ServiceAccountIamMember
from cdktn_provider_google.storage_bucket_iam_member import StorageBucketIamMember, StorageBucketIamMemberCondition
from constructs import Construct

from agent.config import Machine
from agent.store.names import ROLLING
from infra.stacks.conditions import objects_and_listings_below, objects_below
from infra.stacks.continuous_integration.roles import ACCOUNT_ID as CI_ACCOUNT_ID
from infra.stacks.deployment import PACKAGES, Deployment
from infra.stacks.fleet.roles import IN_PROJECT, RANKS

CREATE, READ = "roles/storage.objectCreator", "roles/storage.objectViewer"


class RunIdentity(Construct):
    """The service account of one run, with its grants.

    `grants`: what a group of VMs must wait for, or its first VM finds itself forbidden to do anything. `acts`: those of
    them that let somebody make VMs of this identity.
    """

    def __init__(self, scope: Construct, name: str, *, deployment: Deployment) -> None:
        super().__init__(scope, name)
        self._deployment = deployment
        self.account = ServiceAccount(
            self,
            "account",
            account_id=deployment.vm_account_id,
            display_name=f"VMs of run {deployment.run.run_id}",
            description="Creates and reads its own run's objects; deletes none but rolling checkpoints",
        )
        self.email = self.account.email
        self.grants: list[ITerraformDependable] = []
        self.acts: list[ITerraformDependable] = []
        self._grant_run()
        self._grant_data()
        self._grant_project()
        self._grant_secret()
        for number, operator in enumerate(deployment.cloud.operators):
            self._let_act(f"operator-{number}", operator)  # or OS Login lets him in nowhere
        if deployment.cloud.github:
            deployer = f"serviceAccount:{CI_ACCOUNT_ID}@{deployment.project}.iam.gserviceaccount.com"
            self._let_act("continuous-integration", deployer)  # or it can make no template with this identity
        if any(machine.vms > 1 for machine in _machines(deployment)):
            self._let_ranks_talk()

    def _grant_run(self) -> None:
        bucket, run = self._deployment.bucket, f"{self._deployment.prefix}/"
        self._in_bucket("creates", CREATE, bucket, objects_below(bucket, run))
        self._in_bucket("reads", READ, bucket, objects_and_listings_below(bucket, run))
        retire = self._deployment.role("retire")
        self._in_bucket("retires", retire, bucket, objects_below(bucket, f"{run}{ROLLING}"))
        self._in_bucket("reads-packages", READ, bucket, objects_below(bucket, PACKAGES))
        for number, other in enumerate(self._deployment.starts):
            self._in_bucket(f"reads-start-{number}", READ, bucket, objects_and_listings_below(bucket, f"{other}/"))

    def _grant_data(self) -> None:
        """Read data.source where that is in a bucket, which must have uniform access if a folder of it is named."""
        place = self._deployment.data
        if place is None or not self._deployment.grants_data:
            return
        expression = objects_and_listings_below(place.bucket, f"{place.folder}/") if place.folder else None
        self._in_bucket("reads-data", READ, place.bucket, expression)

    def _grant_project(self) -> None:
        for role in IN_PROJECT:
            self._in_project(role.rpartition(".")[2], role)
        # Any group of the project, and no condition could make it less: IAM is told no name of an instance group
        # (https://cloud.google.com/iam/docs/conditions-attribute-reference, resource.name), so that a condition on it
        # never holds, and the run's last VM would train nothing and be paid for.
        self._in_project("resizes", self._deployment.role("resize"))

    def _grant_secret(self) -> None:
        tracking = self._deployment.run.tracking
        if tracking is None or tracking.wandb is None:
            return
        self.grants.append(
            SecretManagerSecretIamMember(
                self,
                "reads-wandb-key",
                secret_id=self._deployment.wandb_secret,
                role="roles/secretmanager.secretAccessor",
                member=self.account.member,
            )
        )

    def _let_act(self, name: str, member: str) -> None:
        grant = ServiceAccountIamMember(
            self, name, service_account_id=self.account.name, role="roles/iam.serviceAccountUser", member=member
        )
        self.grants.append(grant)
        self.acts.append(grant)

    def _let_ranks_talk(self) -> None:
        """NCCL and torch's stores choose their ports, so all are open, from the run's own VMs only."""
        email = self.email
        ComputeFirewall(
            self,
            "ranks",
            name=f"{self._deployment.vm_account_id}{RANKS}",
            description=f"Ranks of run {self._deployment.run.run_id} among themselves",
            network=f"projects/{self._deployment.project}/global/networks/{self._deployment.network}",
            direction="INGRESS",
            priority=1000,
            source_service_accounts=[email],
            target_service_accounts=[email],
            allow=[ComputeFirewallAllow(protocol="tcp"), ComputeFirewallAllow(protocol="udp")],
        )

    def _in_bucket(self, what: str, role: str, bucket: str, expression: str | None) -> None:
        condition = StorageBucketIamMemberCondition(title=what, expression=expression) if expression else None
        self.grants.append(
            StorageBucketIamMember(
                self, what, bucket=bucket, role=role, member=self.account.member, condition=condition
            )
        )

    def _in_project(self, what: str, role: str) -> None:
        grant = ProjectIamMember(self, what, project=self._deployment.project, role=role, member=self.account.member)
        self.grants.append(grant)


def _machines(deployment: Deployment) -> list[Machine]:
    run = deployment.run
    return [run.machine, *(run.machine_for(stage) for stage in run.stages)]
