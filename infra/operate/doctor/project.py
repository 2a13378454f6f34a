"""The project: whether it is there, pays, and has its APIs on."""

from __future__ import annotations

from infra.operate.api import ApiError
from infra.operate.doctor.finding import Finding, Patient, note, ok, problem
from infra.stacks.foundation.apis import SERVICES

CONSOLE = "https://console.cloud.google.com"
FIRST_APIS = ("cloudresourcemanager", "serviceusage", "compute", "storage", "iam")
"""Without these the stacks can't even be planned."""
LATER_APIS = tuple(name for api in SERVICES if (name := api.partition(".")[0]) not in FIRST_APIS)
"""The foundation enables these by itself."""


def check_project(patient: Patient) -> list[Finding]:
    project = patient.deployment.project
    try:
        told = patient.api.get(f"https://cloudresourcemanager.googleapis.com/v3/projects/{project}")
    except ApiError as error:
        if error.reason == "SERVICE_DISABLED":
            fix = f"gcloud services enable cloudresourcemanager.googleapis.com --project {project}"
            return [problem("project", "its resource manager API is off", fix)]
        if error.status in (403, 404):  # Google does not say which: that it exists is nobody's business
            fix = f"gcloud projects create {project}, or write cloud.project as in: gcloud projects list"
            return [problem("project", f"{project} does not exist, or is not yours to see", fix)]
        return [problem("project", str(error), f"{CONSOLE}/home/dashboard?project={project}")]
    if told.get("state") != "ACTIVE":
        return [problem("project", f"{project} is {told.get('state')}", f"gcloud projects undelete {project}")]
    return [ok("project", f"{project} is there")]


def check_billing(patient: Patient) -> list[Finding]:
    project = patient.deployment.project
    page = f"{CONSOLE}/billing/linkedaccount?project={project}"
    try:
        told = patient.api.get(f"https://cloudbilling.googleapis.com/v1/projects/{project}/billingInfo")
    except ApiError as error:
        return [note("billing", f"can't be seen: {error}", page)]
    if not told.get("billingEnabled"):
        fix = f"gcloud billing projects link {project} --billing-account ACCOUNT, or {page}"
        return [problem("billing", "the project has no billing account: no VM starts", fix)]
    budget = patient.deployment.cloud.budget
    account = told.get("billingAccountName", "").removeprefix("billingAccounts/")
    if budget and budget.billing_account != account:
        return [
            problem("billing", f"{account} pays, but cloud.budget.billing_account is {budget.billing_account}", page)
        ]
    return [ok("billing", f"{account} pays")]


def check_apis(patient: Patient) -> list[Finding]:
    project = patient.deployment.project
    wanted = [*FIRST_APIS, *LATER_APIS]
    names = [f"projects/{project}/services/{name}.googleapis.com" for name in wanted]
    try:
        told = patient.api.get(
            f"https://serviceusage.googleapis.com/v1/projects/{project}/services:batchGet", {"names": names}
        )
    except ApiError as error:
        fix = f"gcloud services enable serviceusage.googleapis.com --project {project}"
        return [problem("APIs", str(error), fix)]
    on = {
        service["name"].rpartition("/")[2].removesuffix(".googleapis.com")
        for service in told.get("services", [])
        if service.get("state") == "ENABLED"
    }
    off = [name for name in FIRST_APIS if name not in on]
    if off:
        services = " ".join(f"{name}.googleapis.com" for name in off)
        return [problem("APIs", f"off: {', '.join(off)}", f"gcloud services enable {services} --project {project}")]
    later = [name for name in wanted if name not in on]
    if later:
        return [note("APIs", f"off: {', '.join(later)}", "the first deployment turns them on")]
    return [ok("APIs", f"all {len(wanted)} are on")]
