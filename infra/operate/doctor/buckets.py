"""The buckets: the run's own, and that of Terraform's state."""

from __future__ import annotations

import shlex
from typing import Any

from infra.operate.api import ApiError, CloudApi
from infra.operate.doctor.finding import Finding, Patient, note, ok, problem
from infra.stacks.conditions import objects_and_listings_below
from infra.stacks.deployment import Deployment, Place

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


def check_data(patient: Patient) -> list[Finding]:
    """data.source in a bucket of somebody's: whether the VMs may come to read it."""
    deployment, place = patient.deployment, patient.deployment.data
    if place is None or place.bucket == deployment.bucket:
        return []
    what, url = "data", f"gs://{place.bucket}"
    try:
        bucket = read_bucket(patient.api, place.bucket)
    except ApiError as error:
        bucket = {}
        if error.status != 403 or deployment.cloud.grant_data:
            return [_unreadable(what, url, error)]
    if bucket is None:
        return [problem(what, f"{url} is not there", "write another data.source")]
    access = bucket.get("iamConfiguration", {}).get("uniformBucketLevelAccess", {})
    if place.folder and bucket and not access.get("enabled"):
        told = f"{url} has no uniform access, and only with it can a folder of it be shared"
        return [problem(what, told, f"gcloud storage buckets update {url} --uniform-bucket-level-access")]
    grants = [_granting(run, place) for run in _runs(deployment)]
    if not deployment.cloud.grant_data:
        return [
            note(what, f"{url}: its owner lets the VMs read it (cloud.grant_data), once they exist", "; ".join(grants))
        ]
    needed = "storage.buckets.setIamPolicy"
    may = patient.api.get(f"{STORAGE}/b/{place.bucket}/iam/testPermissions", {"permissions": needed})
    if needed not in may.get("permissions", []):
        told = f"{url} is not yours to share: you lack {needed}"
        return [
            problem(what, told, f"write cloud.grant_data: false; deploy; and let its owner type: {'; '.join(grants)}")
        ]
    return [ok(what, f"{url} is there, and yours to let the VMs read")]


def _runs(deployment: Deployment) -> list[Deployment]:
    return [Deployment.of(run) for run in deployment.run.experiments()] or [deployment]


def _granting(deployment: Deployment, place: Place) -> str:
    """The command that lets a run's VMs read the place."""
    command = [
        "gcloud", "storage", "buckets", "add-iam-policy-binding", f"gs://{place.bucket}",
        f"--member=serviceAccount:{deployment.vm_email}", "--role=roles/storage.objectViewer",
    ]  # fmt: skip
    if place.folder:
        expression = objects_and_listings_below(place.bucket, f"{place.folder}/")
        command.append(f"--condition=^:^title=reads-data:expression={expression}")
    return shlex.join(command)
