"""A server on loopback that answers as Google's REST APIs do, in the shapes that their references document."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from infra.local.json_server import Json, JsonServer, Refused
from infra.operate.doctor.project import FIRST_APIS, LATER_APIS

PROJECT = "some-project"
REGION = "us-central1"
COMPUTE = f"compute.googleapis.com/compute/v1/projects/{PROJECT}"
STORAGE = "storage.googleapis.com/storage/v1/b"


class Cloud(JsonServer):
    """What it answers: by host and path, a body or a refusal. What is not listed is not found."""

    def __init__(self, answers: dict[str, Json]) -> None:
        super().__init__()
        self.answers = answers
        self.posted: list[tuple[str, dict[str, list[str]], Json]] = []
        self._refused: dict[str, Refused] = {}

    def refuse(self, path: str, status: int, message: str, *, reason: str = "") -> None:
        """Answer an error from now on."""
        self._refused[path] = Refused(HTTPStatus(status), message, reason, detailed=True)

    def answer(self, method: str, target: str, token: str, body: Json) -> Json:
        parts = urlsplit(target)
        path = parts.path.lstrip("/")
        if method == "POST":
            thing, _, verb = path.partition(":")
            if verb != "getIamPolicy":
                self.posted.append((path, parse_qs(parts.query), body))
            if verb == "getIamPolicy":
                return self.answers[path]
            if verb == "undelete":
                self.answers[thing]["state"] = "ACTIVE"
                return {}
            self.answers[f"{path}/{body['name']}"] = body
            return body
        if path in self._refused:
            raise self._refused[path]
        if path not in self.answers:
            raise Refused(HTTPStatus.NOT_FOUND, f"{path} was not found", "", detailed=True)
        return self.answers[path]

    def quota(self, metric: str, limit: float, usage: float = 0.0) -> None:
        """Set a quota of the region."""
        quotas = self.answers[f"{COMPUTE}/regions/{REGION}"]["quotas"]
        quotas[:] = [entry for entry in quotas if entry["metric"] != metric]
        quotas.append({"metric": metric, "limit": limit, "usage": usage})


def healthy() -> dict[str, Json]:
    """A project in which the run of test_doctor.py can start."""
    zones = [f"{REGION}-{letter}" for letter in "abc"]
    apis = [*FIRST_APIS, *LATER_APIS]
    machine = {"kind": "compute#machineType", "name": "a2-highgpu-1g", "guestCpus": 12, "memoryMb": 87040}
    gpus = {"guestAcceleratorType": "nvidia-tesla-a100", "guestAcceleratorCount": 1}
    machine |= {"architecture": "X86_64", "accelerators": [gpus]}
    return {
        f"cloudresourcemanager.googleapis.com/v3/projects/{PROJECT}": {
            "name": "projects/415104041262",
            "projectId": PROJECT,
            "state": "ACTIVE",
            "displayName": "Some project",
        },
        f"cloudbilling.googleapis.com/v1/projects/{PROJECT}/billingInfo": {
            "name": f"projects/{PROJECT}/billingInfo",
            "projectId": PROJECT,
            "billingAccountName": "billingAccounts/012345-6789AB-CDEF01",
            "billingEnabled": True,
        },
        f"serviceusage.googleapis.com/v1/projects/{PROJECT}/services:batchGet": {
            "services": [
                {"name": f"projects/415104041262/services/{api}.googleapis.com", "state": "ENABLED"} for api in apis
            ]
        },
        COMPUTE: {"kind": "compute#project", "quotas": [{"metric": "GPUS_ALL_REGIONS", "limit": 4.0, "usage": 0.0}]},
        f"cloudresourcemanager.googleapis.com/v1/projects/{PROJECT}:getIamPolicy": {
            "bindings": [
                {
                    "role": "roles/editor",
                    "members": ["serviceAccount:415104041262@cloudservices.gserviceaccount.com"],
                }
            ]
        },
        f"iam.googleapis.com/v1/projects/{PROJECT}/serviceAccounts": {"accounts": [{}] * 3},
        f"logging.googleapis.com/v2/projects/{PROJECT}/metrics": {},
        f"{COMPUTE}/regions/{REGION}": {
            "kind": "compute#region",
            "name": REGION,
            "zones": [f"https://www.googleapis.com/compute/v1/projects/{PROJECT}/zones/{zone}" for zone in zones],
            "quotas": [
                {"metric": "NVIDIA_A100_GPUS", "limit": 0.0, "usage": 0.0},
                {"metric": "PREEMPTIBLE_NVIDIA_A100_GPUS", "limit": 4.0, "usage": 0.0},
                {"metric": "A2_CPUS", "limit": 48.0, "usage": 0.0},
                {"metric": "SSD_TOTAL_GB", "limit": 500.0, "usage": 0.0},
            ],
        },
        **{f"{COMPUTE}/zones/{zone}/machineTypes/a2-highgpu-1g": machine for zone in zones},
    }
