"""A server on loopback that answers as Google's REST APIs do, in the shapes that their references document."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

PROJECT = "some-project"
REGION = "us-central1"
COMPUTE = f"compute.googleapis.com/compute/v1/projects/{PROJECT}"
STORAGE = "storage.googleapis.com/storage/v1/b"


@dataclass
class Cloud:
    """What it answers: by host and path, a status and a body. What is not listed is not found."""

    answers: dict[str, tuple[int, dict[str, Any]]]
    posted: list[tuple[str, dict[str, list[str]], dict[str, Any]]] = field(default_factory=list)
    endpoint: str = ""

    def refuse(self, path: str, status: int, message: str, *, reason: str = "") -> None:
        """Google's error body (cloud.google.com/apis/design/errors)."""
        details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}] if reason else []
        self.answers[path] = (status, {"error": {"code": status, "message": message, "details": details}})

    def quota(self, metric: str, limit: float, usage: float = 0.0) -> None:
        """Set a quota of the region."""
        quotas = self.answers[f"{COMPUTE}/regions/{REGION}"][1]["quotas"]
        quotas[:] = [entry for entry in quotas if entry["metric"] != metric]
        quotas.append({"metric": metric, "limit": limit, "usage": usage})


def healthy() -> dict[str, tuple[int, dict[str, Any]]]:
    """A project in which the run of test_doctor.py can start."""
    zones = [f"{REGION}-{letter}" for letter in "abc"]
    apis = ["cloudresourcemanager", "serviceusage", "compute", "storage", "iam", "iap", "logging", "monitoring"]
    apis += ["secretmanager", "oslogin"]
    machine = {"kind": "compute#machineType", "name": "a2-highgpu-1g", "guestCpus": 12, "memoryMb": 87040}
    return {
        f"cloudresourcemanager.googleapis.com/v3/projects/{PROJECT}": (
            200,
            {"name": "projects/415104041262", "projectId": PROJECT, "state": "ACTIVE", "displayName": "Some project"},
        ),
        f"cloudbilling.googleapis.com/v1/projects/{PROJECT}/billingInfo": (
            200,
            {
                "name": f"projects/{PROJECT}/billingInfo",
                "projectId": PROJECT,
                "billingAccountName": "billingAccounts/012345-6789AB-CDEF01",
                "billingEnabled": True,
            },
        ),
        f"serviceusage.googleapis.com/v1/projects/{PROJECT}/services:batchGet": (
            200,
            {
                "services": [
                    {"name": f"projects/415104041262/services/{api}.googleapis.com", "state": "ENABLED"} for api in apis
                ]
            },
        ),
        COMPUTE: (
            200,
            {"kind": "compute#project", "quotas": [{"metric": "GPUS_ALL_REGIONS", "limit": 4.0, "usage": 0.0}]},
        ),
        f"{COMPUTE}/regions/{REGION}": (
            200,
            {
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
        ),
        **{f"{COMPUTE}/zones/{zone}/machineTypes/a2-highgpu-1g": (200, machine) for zone in zones},
    }


@contextlib.contextmanager
def running(answers: dict[str, tuple[int, dict[str, Any]]]) -> Iterator[Cloud]:
    cloud = Cloud(answers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(*cloud.answers.get(urlsplit(self.path).path.lstrip("/"), self._not_found()))

        def do_POST(self) -> None:
            parts = urlsplit(self.path)
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            cloud.posted.append((parts.path.lstrip("/"), parse_qs(parts.query), body))
            cloud.answers[f"{parts.path.lstrip('/')}/{body['name']}"] = (200, body)
            self._answer(200, body)

        def _not_found(self) -> tuple[int, dict[str, Any]]:
            return 404, {"error": {"code": 404, "message": f"{self.path} was not found"}}

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    cloud.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield cloud
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
