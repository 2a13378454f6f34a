"""The buckets: the run's own, and that of Terraform's state."""

from __future__ import annotations

from typing import Any

from infra.operate.api import ApiError, CloudApi
from infra.operate.doctor.finding import Finding, Patient, note, ok, problem

STORAGE = "https://storage.googleapis.com/storage/v1"


def read_bucket(api: CloudApi, name: str) -> dict[str, Any] | None:
    """Cloud Storage's `Bucket`, or None where there is none."""
    try:
        return api.get(f"{STORAGE}/b/{name}")
    except ApiError as error:
        if error.status == 404:
            return None
        raise


def check_bucket(patient: Patient) -> list[Finding]:
    """The run's bucket: in the region of its VMs, and not paying for what it deleted."""
    deployment = patient.deployment
    what, url = "bucket", f"gs://{deployment.bucket}"
    try:
        bucket = read_bucket(patient.api, deployment.bucket)
    except ApiError as error:
        return [_unreadable(what, url, error)]
    if bucket is None:
        return [ok(what, f"{url} is not there yet: the foundation makes it in {deployment.region}")]
    found: list[Finding] = []
    location = str(bucket.get("location", "")).lower()
    if location != deployment.region:
        told = f"{url} is in {location}, the VMs are in {deployment.region}: slower, and each byte read is paid for"
        fix = "write another checkpoint.bucket, or machine.region"
        wide = bucket.get("locationType") in ("multi-region", "dual-region")
        found.append(note(what, told, fix) if wide else problem(what, told, fix))
    kept = int(bucket.get("softDeletePolicy", {}).get("retentionDurationSeconds", 0))
    if kept:
        told = f"{url} keeps, and bills, what is deleted for {kept / 86400:g} days (soft delete): every old checkpoint"
        found.append(note(what, told, f"gcloud storage buckets update {url} --clear-soft-delete"))
    return found or [ok(what, f"{url} is there, in {location}")]


def check_state_bucket(patient: Patient) -> list[Finding]:
    deployment = patient.deployment
    what, url = "state bucket", f"gs://{deployment.state_bucket}"
    try:
        bucket = read_bucket(patient.api, deployment.state_bucket)
    except ApiError as error:
        return [_unreadable(what, url, error)]
    if bucket is None:
        return [ok(what, f"{url} is not there yet: spot deploy asks, and makes it")]
    access = bucket.get("iamConfiguration", {})
    lacking = {
        "--versioning": bucket.get("versioning", {}).get("enabled"),
        "--uniform-bucket-level-access": access.get("uniformBucketLevelAccess", {}).get("enabled"),
        "--public-access-prevention": access.get("publicAccessPrevention") == "enforced",
    }
    options = [option for option, there in lacking.items() if not there]
    if options:
        told = f"{url} lacks {', '.join(option.strip('-') for option in options)}: a lost or public state is trouble"
        return [problem(what, told, f"gcloud storage buckets update {url} {' '.join(options)}")]
    return [ok(what, f"{url} is there, with versions and without public access")]


def _unreadable(what: str, url: str, error: ApiError) -> Finding:
    if error.status == 403:
        told = f"{url} is there, and not yours to read: somebody else's, or you lack storage.buckets.get"
        return problem(what, told, "write another name, or ask for roles/storage.admin in the project")
    return problem(what, f"{url}: {error}", "try again")
