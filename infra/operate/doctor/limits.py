"""What a project and its organization allow, and a run's stacks run into: counts, policies, Google's own account."""

from __future__ import annotations

from infra.operate.api import ApiError
from infra.operate.doctor.finding import Finding, Patient, note, ok, problem
from infra.operate.doctor.project import CONSOLE

ACCOUNTS, METRICS = 100, 500
"""Service accounts of a project, and log-based metrics that a user defines, unless Google was asked for more:
docs.cloud.google.com/iam/quotas and .../logging/quotas."""

METRICS_OF_A_RUN = 11
"""infra/stacks/observability/metrics.py"""

CONSTRAINTS: dict[str, str] = {
    "compute.disableGuestAttributesAccess": "the agent says in guest attributes how it is",
    "compute.disableSerialPortLogging": "what a VM says that does not come to its journal is lost",
    "iam.disableServiceAccountCreation": "each run has an identity of its own",
}
"""Policies that are yes or no, and what is lost where it is yes. OS Login, shielded VMs and VMs without an external
address are how ours are anyway."""


def check_counts(patient: Patient) -> list[Finding]:
    """Each run, and each experiment of a grid, has a service account; each run file its metrics."""
    project, run = patient.deployment.project, patient.deployment.run
    accounts = len(run.experiments()) or 1
    found: list[Finding] = []
    iam, logging = "https://iam.googleapis.com/v1", "https://logging.googleapis.com/v2"
    for what, url, key, limit, more in (
        ("service accounts", f"{iam}/projects/{project}/serviceAccounts", "accounts", ACCOUNTS, accounts),
        ("log metrics", f"{logging}/projects/{project}/metrics", "metrics", METRICS, METRICS_OF_A_RUN),
    ):
        try:
            used = len(patient.api.get(url, {"pageSize": limit}).get(key, []))
        except ApiError as error:
            found.append(note(what, f"can't be counted: {error}"))
            continue
        told = f"{used} of {limit} in use, this run file has {more}"
        page = f"{CONSOLE}/iam-admin/quotas?project={project}"
        if used + more <= limit:
            found.append(ok(what, told))
        else:  # those of this very run may be among them
            found.append(note(what, f"{told}: a new one may be refused", f"spot destroy what is over, or ask: {page}"))
    return found


def check_policies(patient: Patient) -> list[Finding]:
    """The organization's policies, where there is an organization and they can be seen."""
    deployment, what = patient.deployment, "organization policy"
    wanted = dict(CONSTRAINTS)
    if deployment.cloud.external_ip:
        wanted["compute.vmExternalIpAccess"] = "cloud.external_ip gives VMs an address"
    found: list[Finding] = []
    for constraint, why in wanted.items():
        name = f"projects/{deployment.project}/policies/{constraint}"
        try:
            told = patient.api.get(f"https://orgpolicy.googleapis.com/v2/{name}:getEffectivePolicy")
        except ApiError as error:
            if error.status == 404:
                continue
            return [note(what, f"can't be seen: {error}", "ask who looks after the organization")]
        rules = told.get("spec", {}).get("rules", [])
        if any(rule.get("enforce") or rule.get("denyAll") for rule in rules):
            told_of = f"{constraint} is enforced, and {why}"
            found.append(problem(what, told_of, f"{CONSOLE}/iam-admin/orgpolicies?project={deployment.project}"))
    return found or [ok(what, f"none of {', '.join(wanted)} is enforced")]


def check_agent(patient: Patient) -> list[Finding]:
    """Google's own account, which makes the groups' VMs: an organization may give it no role by itself."""
    project, what = patient.deployment.project, "Google APIs service agent"
    crm = "https://cloudresourcemanager.googleapis.com"
    try:
        number = str(patient.api.get(f"{crm}/v3/projects/{project}").get("name", "")).rpartition("/")[2]
        policy = patient.api.post(f"{crm}/v1/projects/{project}:getIamPolicy", {})
    except ApiError as error:
        return [note(what, f"can't be seen: {error}")]
    agent = f"serviceAccount:{number}@cloudservices.gserviceaccount.com"
    roles = {binding["role"] for binding in policy.get("bindings", []) if agent in binding.get("members", [])}
    if roles & {"roles/editor", "roles/owner", "roles/compute.instanceAdmin.v1"}:
        return [ok(what, f"{agent.partition(':')[2]} may make VMs")]
    fix = f"gcloud projects add-iam-policy-binding {project} --member={agent} --role=roles/editor"
    return [problem(what, f"{agent.partition(':')[2]} may make no VM: the groups stay empty", fix)]
