#!/usr/bin/env python3
"""A VM that can't start its agent says so where somebody sees it, and a group of such VMs ends: a group makes a new VM
of each that failed, for ever, and each is paid for.

    python3 boot_failed.py STAGE WHY [FORBIDDEN]    # FORBIDDEN: what refused the VM's identity, if anything did

Run by startup.sh with the image's Python alone. It tells Cloud Logging, leaves a record in the bucket, and counts the
run's records since an agent last wrote to the line, or since the group was last given up. As many as the metadata's
`spot-failed-boots`, or a bucket that is still forbidden: the group is set to zero. Prints why, for the journal.

SPOT_LOGGING_URL, STORAGE_EMULATOR_HOST and SPOT_COMPUTE_URL redirect it to a local cloud.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from typing import Any

_CALL_S = 15.0
_METADATA = f"http://{os.environ.get('GCE_METADATA_HOST', '169.254.169.254')}/computeMetadata/v1/"
_LOCAL = "GCE_METADATA_HOST" in os.environ
"""A local VM's token is not one of Google's: what is not redirected is not called."""
_STORAGE = os.environ.get("STORAGE_EMULATOR_HOST") or ("" if _LOCAL else "https://storage.googleapis.com")
_LOGGING = os.environ.get("SPOT_LOGGING_URL") or ("" if _LOCAL else "https://logging.googleapis.com")
_COMPUTE = os.environ.get("SPOT_COMPUTE_URL") or ("" if _LOCAL else "https://compute.googleapis.com")

BOOTS = "boots/"
GAVE_UP = "-gave-up-boot.json"
FAILED = "-failed-boot.json"

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def main() -> None:
    stage, why, *rest = sys.argv[1:]
    forbidden = " ".join(rest).strip()
    home = _attribute("spot-home").removeprefix("gs://")
    bucket, _, prefix = home.partition("/")
    run_id, group, most = prefix.rpartition("/")[2], _attribute("spot-group"), _attribute("spot-failed-boots")
    fields = {"RUN_ID": run_id, "STAGE": stage}
    _try("Cloud Logging", lambda: _tell("boot_failed", why, fields))
    if not home or not group or not most.isdigit():
        return
    reason = f"the VM was still refused after its grants had time to spread: {forbidden}" if forbidden else ""
    if not reason:
        _try("the bucket", lambda: _record(bucket, prefix, FAILED, {"stage": stage, "why": why}))
        failed = _try("the bucket", lambda: _in_a_row(bucket, prefix)) or 0
        if failed >= int(most):
            reason = f"{failed} boots in a row came to no agent, the last of them at {stage}: {why}"
    if not reason:
        return
    told = f"{reason}; the group is set to zero, and `spot start` gives its VMs back once that is mended"
    print(told)
    _try("Cloud Logging", lambda: _tell("boot_gave_up", told, fields))
    _try("the bucket", lambda: _record(bucket, prefix, GAVE_UP, {"stage": stage, "why": told}))
    _try("Compute Engine", lambda: _resize(group))


def _try(whom: str, call: Any) -> Any:
    """One that does not answer does not keep the others from being told."""
    try:
        return call()
    except (OSError, ValueError, KeyError) as error:
        print(f"spot-startup: {whom} was not told: {error}", file=sys.stderr)
        return None


def _attribute(name: str) -> str:
    return _metadata(f"instance/attributes/{name}")


def _metadata(path: str) -> str:
    """Empty where it is not set."""
    request = urllib.request.Request(_METADATA + path, headers={"Metadata-Flavor": "Google"})  # noqa: S310
    try:
        with _direct.open(request, timeout=_CALL_S) as answer:
            text: str = answer.read().decode()
            return text
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return ""
        raise


def _call(method: str, url: str, body: Any = None, **query: str) -> dict[str, Any]:
    token = json.loads(_metadata("instance/service-accounts/default/token"))["access_token"]
    request = urllib.request.Request(  # noqa: S310, https, or a local cloud's own
        f"{url}?{urllib.parse.urlencode(query)}" if query else url,
        data=None if body is None else json.dumps(body).encode(),
        method=method,
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=_CALL_S) as answer:  # noqa: S310
        told: dict[str, Any] = json.loads(answer.read() or b"{}")
        return told


def _tell(event: str, message: str, fields: dict[str, str]) -> None:
    """Where the agent's records are, in their form (agent/telemetry/cloud_log.py)."""
    if not _LOGGING:
        return
    project, zone = _metadata("project/project-id"), _metadata("instance/zone").rpartition("/")[2]
    labels = {"project_id": project, "zone": zone, "instance_id": _metadata("instance/id")}
    said = {"MESSAGE": message, "EVENT": event, "PRIORITY": "3", "SYSLOG_IDENTIFIER": "spot-startup", **fields}
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    entry = {"timestamp": now, "severity": "ERROR", "insertId": uuid.uuid4().hex, "jsonPayload": said}
    _call(
        "POST",
        f"{_LOGGING}/v2/entries:write",
        {
            "logName": f"projects/{project}/logs/spot-agent",
            "resource": {"type": "gce_instance", "labels": labels},
            "entries": [entry],
        },
    )


def _record(bucket: str, prefix: str, end: str, content: dict[str, str]) -> None:
    name = f"{prefix}/{BOOTS}{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:6]}{end}"
    url = f"{_STORAGE}/upload/storage/v1/b/{bucket}/o"
    _call("POST", url, content, uploadType="media", name=name, ifGenerationMatch="0")


def _in_a_row(bucket: str, prefix: str) -> int:
    """Boots that failed since the last sign of an agent, or since the group was last given up."""
    line = _list(bucket, f"{prefix}/line/", newest_first=True)
    boots = _list(bucket, f"{prefix}/{BOOTS}")
    ends = [made for name, made in (*line, *boots) if not name.endswith(FAILED)]
    since = max(ends, default="")
    return sum(made > since for name, made in boots if name.endswith(FAILED))


def _list(bucket: str, prefix: str, *, newest_first: bool = False) -> list[tuple[str, str]]:
    """(name, time of creation, as text that sorts). The line's names count down, so that its first page is enough."""
    found: list[tuple[str, str]] = []
    page = ""
    while True:
        query = {"prefix": prefix, "fields": "items(name,timeCreated),nextPageToken"}
        query |= {"pageToken": page} if page else {}
        answer = _call("GET", f"{_STORAGE}/storage/v1/b/{bucket}/o", **query)
        found += [(item["name"], item["timeCreated"]) for item in answer.get("items", ())]
        page = answer.get("nextPageToken", "")
        if newest_first or not page:
            return found


def _resize(group: str) -> None:
    if _COMPUTE:
        _call("POST", f"{_COMPUTE}/compute/v1/{group}/resize", size="0", requestId=str(uuid.uuid4()))


if __name__ == "__main__":
    main()
