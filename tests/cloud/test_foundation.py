"""The foundation: what the runs of one bucket share, and that nothing in it is open, secret or lost by accident."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cloud.grants import ALPHA, BETA, Json, deployment, synthesize_grants

KEY = "projects/keys/locations/us-central1/keyRings/ring/cryptoKeys/runs"


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Json]:
    return synthesize_grants(tmp_path_factory.mktemp("foundation"), alpha=deployment(ALPHA), beta=deployment(BETA))


def of_type(stack: Json, kind: str) -> dict[str, Json]:
    found: dict[str, Json] = stack["resource"].get(kind, {})
    return found


def without_paths(stack: Json) -> Any:
    """Without the library's comments, which name the app's folder."""
    return json.loads(json.dumps({key: value for key, value in stack.items() if key != "//"}))


def test_two_runs_in_one_bucket_have_the_same_foundation(stacks: dict[str, Json], tmp_path: Path) -> None:
    other = synthesize_grants(tmp_path, alpha=deployment(BETA), beta=deployment(ALPHA))
    assert without_paths(stacks["foundation"]) == without_paths(other["foundation"])
    assert "alpha" not in json.dumps(without_paths(stacks["foundation"]))


def test_the_state_of_each_stack_is_in_the_operators_bucket(stacks: dict[str, Json]) -> None:
    places = {name: stack["terraform"]["backend"]["gcs"] for name, stack in stacks.items()}
    assert places["foundation"] == {"bucket": "some-project-spot-state", "prefix": "spot-training/some-runs/foundation"}
    assert len({place["prefix"] for place in places.values()}) == len(places)


def test_the_bucket_is_private_in_the_vms_region_and_stays(stacks: dict[str, Json]) -> None:
    (bucket,) = of_type(stacks["foundation"], "google_storage_bucket").values()
    assert bucket["location"] == "US-CENTRAL1"
    assert bucket["uniform_bucket_level_access"] is True
    assert bucket["public_access_prevention"] == "enforced"
    assert bucket["lifecycle"]["prevent_destroy"] is True
    assert bucket["force_destroy"] is False


def test_nothing_bills_checkpoints_after_they_were_retired(stacks: dict[str, Json]) -> None:
    (bucket,) = of_type(stacks["foundation"], "google_storage_bucket").values()
    assert bucket["soft_delete_policy"]["retention_duration_seconds"] == 0
    assert bucket["versioning"]["enabled"] is False


def test_only_who_says_so_can_destroy_the_bucket(tmp_path: Path) -> None:
    stacks = synthesize_grants(tmp_path, alpha=deployment(ALPHA), beta=deployment(BETA), keep_bucket=False)
    (bucket,) = of_type(stacks["foundation"], "google_storage_bucket").values()
    assert bucket["force_destroy"] is True
    assert not bucket["lifecycle"].get("prevent_destroy")


def test_a_key_of_ones_own_is_used_only_once_storage_may(stacks: dict[str, Json], tmp_path: Path) -> None:
    (bucket,) = of_type(stacks["foundation"], "google_storage_bucket").values()
    assert "encryption" not in bucket
    encrypted = synthesize_grants(tmp_path, alpha=deployment(ALPHA, kms_key=KEY), beta=deployment(BETA))["foundation"]
    (bucket,) = of_type(encrypted, "google_storage_bucket").values()
    ((name, grant),) = of_type(encrypted, "google_kms_crypto_key_iam_member").items()
    assert bucket["encryption"] == {"default_kms_key_name": KEY}
    assert f"google_kms_crypto_key_iam_member.{name}" in bucket["depends_on"]
    assert grant["crypto_key_id"] == KEY
    assert "data.google_storage_project_service_account.storage-agent.email_address" in grant["member"]


def test_the_firewall_lets_in_ssh_through_iap_and_health_checks_alone(stacks: dict[str, Json]) -> None:
    rules = of_type(stacks["foundation"], "google_compute_firewall").values()
    opened = {
        (tuple(rule["source_ranges"]), allowed["protocol"], tuple(allowed["ports"]), tuple(rule["target_tags"]))
        for rule in rules
        for allowed in rule.get("allow", ())
    }
    assert opened == {
        (("35.235.240.0/20",), "tcp", ("22",), ("spot-training",)),
        (("130.211.0.0/22", "35.191.0.0/16"), "tcp", ("9620",), ("spot-training",)),
    }
    (denied,) = (rule for rule in rules if "deny" in rule)
    assert denied["deny"] == [{"protocol": "all"}]
    assert denied["source_ranges"] == ["0.0.0.0/0"]
    assert denied["priority"] > max(rule["priority"] for rule in rules if "allow" in rule)
    assert "log_config" in denied


def test_ranks_talk_within_their_run_only(stacks: dict[str, Json]) -> None:
    (rule,) = of_type(stacks["alpha"], "google_compute_firewall").values()
    (account,) = of_type(stacks["alpha"], "google_service_account")
    itself = [f"${{google_service_account.{account}.email}}"]
    assert rule["source_service_accounts"] == rule["target_service_accounts"] == itself
    assert "source_ranges" not in rule
    assert "source_tags" not in rule
    assert rule["network"].endswith(f"/{deployment(ALPHA).network}")
    assert not of_type(stacks["beta"], "google_compute_firewall"), "a run of one VM has nobody to talk to"


def test_vms_reach_storage_without_an_address_and_without_nat(stacks: dict[str, Json]) -> None:
    (subnetwork,) = of_type(stacks["foundation"], "google_compute_subnetwork").values()
    (network,) = of_type(stacks["foundation"], "google_compute_network").values()
    assert subnetwork["private_ip_google_access"] is True
    assert subnetwork["ip_cidr_range"] == "10.64.0.0/20"
    assert network["auto_create_subnetworks"] is False


def test_apis_stay_enabled_when_the_stack_goes(stacks: dict[str, Json]) -> None:
    services = of_type(stacks["foundation"], "google_project_service").values()
    assert services
    assert all(service["disable_on_destroy"] is False for service in services)


SECRET_VALUES = {
    "google_secret_manager_secret_version",
    "google_service_account_key",
    "google_storage_hmac_key",
    "google_storage_bucket_object",
}
"""Resources whose content is in Terraform's state as plain text."""


def test_no_secret_is_in_state_or_plan(stacks: dict[str, Json]) -> None:
    for name, stack in stacks.items():
        assert not SECRET_VALUES & set(stack["resource"]), name
        assert not {"google_secret_manager_secret_version", "google_client_config"} & set(stack.get("data", {})), name
    (secret,) = of_type(stacks["foundation"], "google_secret_manager_secret").values()
    assert set(secret) - {"//"} == {"secret_id", "replication", "depends_on"}
