"""The fleet: what VMs are made of, and how groups keep them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.config import RunConfig, load_run
from agent.config.program import with_code
from infra.stacks.deployment import Deployment, NotDeployable
from infra.stacks.fleet.images import CPU_IMAGE, GPU_IMAGE, family_of
from infra.stacks.fleet.metadata import metadata_of
from infra.stacks.fleet.patience import BOOT_S, RESTART_S
from infra.stacks.fleet.plan import groups_of
from infra.stacks.fleet.scheduling import longest_s as longest_of
from infra.stacks.machine_types import BUILT_IN_GPUS
from tests.cloud.examples import CODE
from tests.cloud.terraform import rendered

if TYPE_CHECKING:
    from tests.cloud.conftest import Synthesize
    from tests.cloud.examples import Synthesized

ZONAL, REGIONAL = "google_compute_instance_group_manager", "google_compute_region_instance_group_manager"


def fleet_of(example: Synthesized) -> str:
    return "fleet" if "fleet" in example.stacks else "ablations"


def resources(example: Synthesized, kind: str) -> list[dict[str, Any]]:
    stack = example.stacks[fleet_of(example)]
    return list(stack["resource"].get(kind, {}).values())


def templates(example: Synthesized) -> list[dict[str, Any]]:
    return resources(example, "google_compute_instance_template")


def groups(example: Synthesized) -> dict[str, dict[str, Any]]:
    return {group["name"]: group for kind in (ZONAL, REGIONAL) for group in resources(example, kind)}


def the_template(example: Synthesized) -> dict[str, Any]:
    (template,) = templates(example)
    return template


def the_group(example: Synthesized) -> dict[str, Any]:
    (group,) = groups(example).values()
    return group


# --- what every fleet is ---


def test_a_vm_reads_the_very_run_that_its_group_is_for(example: Synthesized, tmp_path: Path) -> None:
    for template in templates(example):
        metadata = rendered(template["metadata"])
        (tmp_path / "run.yaml").write_text(metadata["spot-run"])
        run = load_run(tmp_path / "run.yaml")
        assert run.machine.type == template["machine_type"]
        assert run.machine.provisioning.upper() == template["scheduling"]["provisioning_model"]
        assert metadata["spot-notice"] == f"{run.machine.notice:g} s"
        packed = f"gs://{example.deployment.bucket}/packages/{CODE}"
        described = example.deployment.run
        assert run.workload == (with_code(described, packed) if described.workload.code else described).workload
        assert (run.cloud, run.ablations, run.price_cap) == (None, None, None)
        assert [stage.machine for stage in run.stages] == [None] * len(example.deployment.run.stages)


def test_a_vm_knows_its_own_group_by_the_path_that_terraform_gives_it(example: Synthesized) -> None:
    told = {template["metadata"]["spot-group"] for template in templates(example)}
    made = {
        f"projects/my-project/zones/{group['zone']}/instanceGroupManagers/{name}"
        if "zone" in group
        else f"projects/my-project/regions/{group['region']}/instanceGroupManagers/{name}"
        for name, group in groups(example).items()
    }
    assert told == made


def test_names_are_no_longer_than_compute_engine_takes_them(example: Synthesized) -> None:
    for name, group in groups(example).items():
        assert group["base_instance_name"] == name
        assert len(name) + len("-abcd") <= 63
    for template in templates(example):
        assert len(template["name_prefix"]) <= 37
    for check in resources(example, "google_compute_health_check"):
        assert len(check["name"]) <= 63


def test_a_vm_is_reached_by_nobody_but_who_may_log_in(example: Synthesized) -> None:
    for template in templates(example):
        (interface,) = template["network_interface"]
        assert ("access_config" in interface) is example.deployment.cloud.external_ip
        assert template["metadata"]["enable-oslogin"] == template["metadata"]["block-project-ssh-keys"] == "TRUE"
        assert template["tags"] == [example.deployment.vm_tag]
        assert template["shielded_instance_config"]["enable_vtpm"]
        assert "google_service_account" in template["service_account"]["email"]


def test_the_first_vm_waits_until_its_identity_may_do_its_work(example: Synthesized) -> None:
    for group in groups(example).values():
        waited_for = {address.partition(".")[0] for address in group["depends_on"]}
        assert {"google_storage_bucket_iam_member", "google_project_iam_member"} <= waited_for


def test_the_group_is_more_patient_than_the_agent(example: Synthesized) -> None:
    """Or it makes a new VM in the middle of tokenising or of a restore, and a run that can only crash never ends."""
    limits = example.deployment.run.supervision
    for check in resources(example, "google_compute_health_check"):
        failing = check["check_interval_sec"] * check["unhealthy_threshold"]
        assert failing >= limits.crash_limit * RESTART_S
        assert (check["http_health_check"]["port"], check["http_health_check"]["request_path"]) == (9620, "/healthz")
    for group in groups(example).values():
        delay = group["auto_healing_policies"]["initial_delay_sec"]
        assert BOOT_S + limits.crash_limit * RESTART_S <= delay <= 3600
        assert BOOT_S + limits.start_timeout + limits.restore_timeout <= delay + failing


def test_gpus_that_come_with_a_type_are_not_named_again(example: Synthesized) -> None:
    """Other machine types could not be used with a template that does."""
    for template in templates(example):
        assert ("guest_accelerator" in template) is (example.name == "n1-t4")
        with_gpu = template["machine_type"] in BUILT_IN_GPUS or "guest_accelerator" in template
        boot = template["disk"][0]
        image = example.deployment.cloud.image or (GPU_IMAGE if with_gpu else CPU_IMAGE)
        if (family := family_of(image, project="my-project")) is None:
            assert boot["source_image"] == image
        else:  # which of it is the newest is asked once, as it is deployed: the VM after a preemption boots the same
            name = re.fullmatch(r"\$\{data\.google_compute_image\.([\w-]+)\.self_link\}", boot["source_image"])
            assert name
            asked = example.stacks[fleet_of(example)]["data"]["google_compute_image"][name[1]]
            assert (asked["project"], asked["family"]) == (family.project, family.name)


# --- what each kind is ---


def test_spot_with_the_longest_notice(synthesized: Synthesize) -> None:
    assert the_template(synthesized("production"))["scheduling"] == {
        "provisioning_model": "SPOT",
        "preemptible": True,
        "on_host_maintenance": "TERMINATE",
        "automatic_restart": False,
        "instance_termination_action": "DELETE",
        "preemption_notice_duration": {"seconds": 120},
    }


def test_standard_for_a_day(synthesized: Synthesize) -> None:
    assert the_template(synthesized("standard"))["scheduling"] == {
        "provisioning_model": "STANDARD",
        "preemptible": False,
        "on_host_maintenance": "TERMINATE",
        "automatic_restart": False,
        "instance_termination_action": "DELETE",
        "max_run_duration": {"seconds": 86400},
    }


@pytest.mark.parametrize(
    ("changes", "longest_s"),
    [
        ({}, None),
        ({"machine": {"max_run_duration": "10 h"}}, 36000.0),
        ({"machine": {"hourly_usd": 2.0}, "supervision": {"max_cost": 40}}, 72900.0),
        ({"machine": {"hourly_usd": 2.0, "max_run_duration": "10 h"}, "supervision": {"max_cost": 40}}, 36000.0),
        ({"machine": {"hourly_usd": 0.01}, "supervision": {"max_cost": 1000}}, None),  # more than Compute Engine counts
    ],
)
def test_a_vm_whose_agent_can_not_end_it_runs_no_longer_than_max_cost_pays_for(
    changes: dict[str, Any], longest_s: float | None
) -> None:
    minimal = {
        "run_id": "run",
        "workload": {"kind": "script", "command": ["python", "train.py"]},
        "checkpoint": {"bucket": "gs://runs"},
    }
    assert longest_of(RunConfig.model_validate(minimal | changes)) == longest_s


def test_standard_without_gpu_is_moved_and_not_stopped(synthesized: Synthesize) -> None:
    scheduling = the_template(synthesized("cpu"))["scheduling"]
    assert scheduling["on_host_maintenance"] == "MIGRATE"
    assert scheduling["automatic_restart"] is True


def test_one_vm_comes_back_in_any_zone(synthesized: Synthesize) -> None:
    group = the_group(synthesized("production"))
    assert group["distribution_policy_target_shape"] == "ANY"
    assert group["instance_lifecycle_policy"]["on_repair"] == {"allow_changing_zone": "YES"}


@pytest.mark.parametrize(("name", "shape", "vms"), [("gang", "ANY_SINGLE_ZONE", 4), ("external-ip", "EVEN", 2)])
def test_vms_that_must_stay_in_their_zones_do(synthesized: Synthesize, name: str, shape: str, vms: int) -> None:
    group = the_group(synthesized(name))
    assert (group["distribution_policy_target_shape"], group["target_size"]) == (shape, vms)
    assert "on_repair" not in group["instance_lifecycle_policy"]
    assert group["update_policy"]["max_unavailable_fixed"] >= vms


def test_one_zone_makes_a_zonal_group(synthesized: Synthesize) -> None:
    (group,) = resources(synthesized("l4"), ZONAL)
    assert group["zone"] == "us-central1-a"
    assert resources(synthesized("l4"), REGIONAL) == []


def test_alternatives_are_ranked_behind_the_runs_own_type(synthesized: Synthesize) -> None:
    selections = the_group(synthesized("alternatives"))["instance_flexibility_policy"]["instance_selections"]
    ranked = [(one["rank"], one["machine_types"]) for one in selections]
    assert ranked == [(0, ["g2-standard-8"]), (1, ["g2-standard-12"]), (2, ["g2-standard-16"]), (3, ["g2-standard-32"])]


def test_local_ssds_are_scratch_and_come_beside_the_boot_disk(synthesized: Synthesize) -> None:
    boot, *scratch = the_template(synthesized("local-ssd"))["disk"]
    assert (boot["boot"], boot["disk_size_gb"], boot["disk_type"]) == (True, 200, "pd-balanced")
    assert [(disk["type"], disk["interface"], disk["disk_size_gb"]) for disk in scratch] == [
        ("SCRATCH", "NVME", 375)
    ] * 2
    assert len(the_template(synthesized("h100"))["disk"]) == 1  # its own need not be asked for


def test_gpus_are_attached_to_n1(synthesized: Synthesize) -> None:
    assert the_template(synthesized("n1-t4"))["guest_accelerator"] == [{"type": "nvidia-tesla-t4", "count": 2}]


# --- stages that hand over ---


def test_each_stage_has_its_group_and_the_first_has_the_vms(synthesized: Synthesize) -> None:
    hybrid = synthesized("hybrid")
    sizes = {name: group["target_size"] for name, group in groups(hybrid).items()}
    assert sizes == {
        "spot-hybrid-stage1-projection": 1,
        "spot-hybrid-stage2-full-finetune": 0,
        "spot-hybrid-stage3-final-polish": 0,
    }
    machines = {
        template["metadata"]["spot-stages"]: (template["machine_type"], template["scheduling"]["provisioning_model"])
        for template in templates(hybrid)
    }
    assert machines == {
        "stage1_projection": ("g2-standard-8", "SPOT"),
        "stage2_full_finetune": ("a2-highgpu-1g", "SPOT"),
        "stage3_final_polish": ("a2-highgpu-1g", "STANDARD"),
    }


def test_a_stage_names_the_group_that_goes_on_and_the_last_names_none(synthesized: Synthesize) -> None:
    metadata = {one["metadata"]["spot-stages"]: one["metadata"] for one in templates(synthesized("hybrid"))}
    first, second, third = metadata.values()
    assert first["spot-next-group"] == second["spot-group"]
    assert second["spot-next-group"] == third["spot-group"]
    assert first["spot-next-size"] == second["spot-next-size"] == "1"
    assert "spot-next-group" not in third


def test_stages_of_one_machine_share_one_group(synthesized: Synthesize) -> None:
    deployment = synthesized("hybrid").deployment
    stages = tuple(stage.model_copy(update={"machine": None}) for stage in deployment.run.stages)
    alike = Deployment.of(deployment.run.model_copy(update={"stages": stages}))
    (group,) = groups_of(alike)
    assert (group.name, group.size, group.leg, group.next) == ("spot-hybrid", 1, None, None)


def test_only_a_run_that_tracks_is_told_where_the_key_is_and_never_the_key(synthesized: Synthesize) -> None:
    for template in templates(synthesized("hybrid")):
        secret = template["metadata"]["spot-wandb-secret"]
        assert secret.startswith("projects/my-project/secrets/")
        assert secret.endswith("/versions/latest")
    assert "spot-wandb-secret" not in the_template(synthesized("production"))["metadata"]


# --- ablations ---


def test_each_experiment_is_one_vm_with_an_identity_of_its_own(synthesized: Synthesize) -> None:
    ablations = synthesized("ablations")
    assert "fleet" not in ablations.stacks
    names = {f"spot-{one.run_id}" for one in ablations.deployment.run.experiments()}
    assert len(names) == 6
    assert {name: group["target_size"] for name, group in groups(ablations).items()} == dict.fromkeys(names, 1)
    emails = {template["service_account"]["email"] for template in templates(ablations)}
    accounts = {account["account_id"] for account in resources(ablations, "google_service_account")}
    assert len(emails) == len(accounts) == 6


def test_the_longest_names_fit_and_stay_apart(synthesized: Synthesize) -> None:
    run = synthesized("hybrid").deployment.run
    stages = tuple(stage.model_copy(update={"name": f"{'s' * 60}_{place}"}) for place, stage in enumerate(run.stages))
    longest = Deployment.of(run.model_copy(update={"run_id": "r" * 40, "stages": stages}))
    names = {group.name for group in groups_of(longest)}
    assert len(names) == len(stages)
    assert max(map(len, names)) + len("-abcd") <= 63


def test_a_run_file_that_compute_engine_would_not_take_is_refused(synthesized: Synthesize) -> None:
    run = synthesized("production").deployment.run
    workload = run.workload.model_copy(update={"env": {"LARGE": "x" * 256 * 1024}})
    large = Deployment.of(run.model_copy(update={"workload": workload}))
    (group,) = groups_of(large)
    with pytest.raises(NotDeployable, match=r"spot-run: .* bytes are more than the 262144"):
        metadata_of(group, deployment=large, bundle="gs://b/packages/x")
