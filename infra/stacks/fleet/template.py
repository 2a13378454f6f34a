"""The instance template: what each VM of a group is made from."""

from __future__ import annotations

from collections.abc import Sequence

from cdktn import ITerraformDependable, TerraformOutput, TerraformResourceLifecycle
from cdktn_provider_google.compute_instance_template import (
    ComputeInstanceTemplate,
    ComputeInstanceTemplateDisk,
    ComputeInstanceTemplateGuestAccelerator,
    ComputeInstanceTemplateNetworkInterface,
    ComputeInstanceTemplateNetworkInterfaceAccessConfig,
    ComputeInstanceTemplateServiceAccount,
    ComputeInstanceTemplateShieldedInstanceConfig,
)
from cdktn_provider_google.data_google_compute_image import DataGoogleComputeImage
from constructs import Construct

from agent.config import Machine
from infra.stacks.deployment import Deployment, shorten
from infra.stacks.fleet.images import boot_disk_type, family_of, image_of
from infra.stacks.fleet.metadata import metadata_of
from infra.stacks.fleet.plan import Group
from infra.stacks.fleet.scheduling import scheduling_of
from infra.stacks.literal import literal
from infra.stacks.machines import gpus_of

_LONGEST_PREFIX = 37
"""The provider adds 26 characters to make a name of 63."""


def define_template(
    scope: Construct,
    *,
    group: Group,
    deployment: Deployment,
    bundle: str,
    service_account: str,
    after: Sequence[ITerraformDependable],
) -> ComputeInstanceTemplate:
    """Templates can't be changed: the provider makes a new one under a new name, and then deletes the old one.

    `bundle`: gs:// path of the packages that a VM installs; `service_account`: email of who it is; `after`: the
    right to act as it, which who deploys may have given himself just now.
    """
    machine, cloud = group.machine, deployment.cloud
    stage = {} if group.leg is None else {"spot-stage": group.leg.stages[0].name}
    return ComputeInstanceTemplate(
        scope,
        f"template-{group.name}",
        name_prefix=f"{shorten(group.name, _LONGEST_PREFIX - 1)}-",
        lifecycle=TerraformResourceLifecycle(create_before_destroy=True),
        depends_on=after,
        description=f"VMs of {group.name}",
        labels=deployment.labels | stage,
        tags=[deployment.vm_tag],
        machine_type=machine.type,
        # A2, A3, A4 and G2 come with theirs; a template that names them could not be used with other machine types.
        guest_accelerator=[
            ComputeInstanceTemplateGuestAccelerator(type=machine.accelerators.type, count=machine.accelerators.count)
        ]
        if machine.accelerators and machine.type.startswith("n1-")
        else None,
        scheduling=scheduling_of(group.run),
        disk=[
            ComputeInstanceTemplateDisk(
                boot=True,
                auto_delete=True,
                source_image=_image(scope, group=group, deployment=deployment),
                disk_size_gb=cloud.boot_disk_gb,
                disk_type=boot_disk_type(machine.type),
                labels=deployment.labels,
            ),
            *_local_ssds(machine),
        ],
        network_interface=[
            ComputeInstanceTemplateNetworkInterface(
                subnetwork=deployment.subnetwork,
                nic_type="GVNIC",  # A3 and newer types have no other; elsewhere it is the faster one
                access_config=[ComputeInstanceTemplateNetworkInterfaceAccessConfig(network_tier="PREMIUM")]
                if cloud.external_ip
                else None,
            )
        ],
        # What the identity may do is said by its roles; the scope takes nothing away from that.
        service_account=ComputeInstanceTemplateServiceAccount(
            email=service_account, scopes=["https://www.googleapis.com/auth/cloud-platform"]
        ),
        shielded_instance_config=ComputeInstanceTemplateShieldedInstanceConfig(
            # With secure boot the kernel loads no driver that was built on the VM, as NVIDIA's often is.
            enable_secure_boot=gpus_of(machine) is None,
            enable_vtpm=True,
            enable_integrity_monitoring=True,
        ),
        metadata=metadata_of(group, deployment=deployment, bundle=bundle),
    )


def _image(scope: Construct, *, group: Group, deployment: Deployment) -> str:
    """One image. Of a family, the one that is the newest as it is deployed: a VM that is made after a preemption boots
    what the one before it did, with the same driver and Python."""
    image = deployment.cloud.image or image_of(group.machine)
    if (family := family_of(image, project=deployment.project)) is None:
        return literal(image)
    newest = DataGoogleComputeImage(scope, f"image-{group.name}", project=family.project, family=family.name)
    TerraformOutput(
        scope, f"image-of-{group.name}", value=newest.self_link, description=f"What VMs of {group.name} boot from"
    )
    return newest.self_link


def _local_ssds(machine: Machine) -> list[ComputeInstanceTemplateDisk]:
    """Scratch disks: empty at each start, which is all that a cache of data and checkpoints needs."""
    return [
        ComputeInstanceTemplateDisk(
            type="SCRATCH",
            disk_type="local-ssd",
            interface="NVME",
            disk_size_gb=375,
            boot=False,
            auto_delete=True,
            device_name=f"local-ssd-{place}",
        )
        for place in range(machine.local_ssd)
    ]
