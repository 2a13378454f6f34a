"""The Weights & Biases key: whether the secret has a value. Nobody reads the value here."""

from __future__ import annotations

from infra.operate.api import ApiError
from infra.operate.doctor.finding import Finding, Patient, note, ok, problem


def check_secret(patient: Patient) -> list[Finding]:
    deployment = patient.deployment
    tracking = deployment.run.tracking
    if tracking is None or tracking.wandb is None:
        return []
    what, secret = "W&B key", deployment.wandb_secret
    name = secret.rpartition("/")[2]
    fix = f"gcloud secrets versions add {name} --data-file=- --project {deployment.project}, and paste the key"
    try:
        version = patient.api.get(f"https://secretmanager.googleapis.com/v1/{secret}/versions/latest")
    except ApiError as error:
        if error.status != 404 and error.reason != "SERVICE_DISABLED":
            return [problem(what, str(error), fix)]
        try:
            patient.api.get(f"https://secretmanager.googleapis.com/v1/{secret}")
        except ApiError:
            return [note(what, f"no secret {name} yet: the first deployment makes it, empty", f"then {fix}")]
        return [problem(what, f"secret {name} has no value", fix)]
    if version.get("state") != "ENABLED":
        return [problem(what, f"the newest version of {name} is {version.get('state')}", fix)]
    return [ok(what, f"secret {name} has a value")]
