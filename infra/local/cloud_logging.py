"""A local stand-in for Cloud Logging: `entries:write`, over HTTP, for those who may.

with CloudLogging(identify=tokens.get, writers={"vm@p.iam"}) as logging:
    ...
    logging.entries

It takes what Cloud Logging takes and refuses what it refuses, as far as its limits are documented: 10 MB a request,
256 kB an entry. An entry that comes again, with the same name of its log, time and insertId, is there once. Not
modelled: reading, other methods, resources of other types.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Set
from http import HTTPStatus
from typing import Any

from infra.local.json_server import JsonServer, Refused

LARGEST_REQUEST, LARGEST_ENTRY = 10_000_000, 256_000
SEVERITIES = frozenset(
    {"DEFAULT", "DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL", "ALERT", "EMERGENCY"},
)
_LABELS = {"project_id", "instance_id", "zone"}


class CloudLogging(JsonServer):
    """Serves on `address` until the block ends. `identify`: access token -> identity, None where it is unknown."""

    def __init__(
        self, *, identify: Callable[[str], str | None], writers: Set[str], address: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.requests = 0
        self._identify, self._writers = identify, writers
        self._failures: list[HTTPStatus] = []
        self._lost_answers = 0
        self._entries: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._changed = threading.Condition()
        super().__init__(address=address, port=port)

    @property
    def entries(self) -> list[dict[str, Any]]:
        """All entries, in the order of their times."""
        with self._changed:
            return sorted(self._entries.values(), key=lambda entry: str(entry["timestamp"]))

    def fail_next(self, *statuses: HTTPStatus) -> None:
        """Answer the next requests with these, one each."""
        with self._changed:
            self._failures += statuses

    def lose_answers(self, count: int) -> None:
        """Keep what the next requests bring, and answer as if the service had failed."""
        with self._changed:
            self._lost_answers = count

    def wait_for(self, predicate: Callable[[list[dict[str, Any]]], bool], timeout: float) -> bool:
        """Wait until `predicate(entries)` holds; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: predicate(list(self._entries.values())), timeout)

    def answer(self, method: str, target: str, token: str, body: dict[str, Any]) -> dict[str, Any]:
        with self._changed:
            self.requests += 1
            self._changed.notify_all()
            if self._failures:
                raise Refused(self._failures.pop(0), "The service is currently unavailable.", "backendError")
            identity = self._identify(token) if token else None
            if identity is None:
                raise Refused(HTTPStatus.UNAUTHORIZED, "Request had invalid authentication credentials.", "authError")
            if identity not in self._writers:
                why = "Permission 'logging.logEntries.create' denied on resource (or it may not exist)."
                raise Refused(HTTPStatus.FORBIDDEN, why, "forbidden")
            if (method, target) != ("POST", "/v2/entries:write"):
                raise Refused(HTTPStatus.NOT_FOUND, f"{method} {target} is not a method.", "notFound")
            if _size(body) > LARGEST_REQUEST:
                raise _invalid(f"Request payload size exceeds the limit: {LARGEST_REQUEST} bytes.")
            for entry in body.get("entries", []):
                self._keep(_checked({"logName": body.get("logName"), "resource": body.get("resource"), **entry}))
            if self._lost_answers:
                self._lost_answers -= 1
                raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "The service is currently unavailable.", "backendError")
        return {}

    def _keep(self, entry: dict[str, Any]) -> None:
        self._entries[entry["logName"], str(entry["timestamp"]), str(entry["insertId"])] = entry


def _checked(entry: dict[str, Any]) -> dict[str, Any]:
    name, resource = str(entry["logName"]), entry["resource"] or {}
    if not name.startswith("projects/") or "/logs/" not in name:
        raise _invalid(f"Log name contains illegal character or is missing: {name}")
    if resource.get("type") != "gce_instance" or set(resource.get("labels", {})) != _LABELS:
        raise _invalid(f"Unsupported resource: {resource}")
    if entry.get("severity", "DEFAULT") not in SEVERITIES:
        raise _invalid(f"Invalid value at 'entries[0].severity': {entry['severity']}")
    if _size(entry) > LARGEST_ENTRY:
        raise _invalid(f"Log entry with size {_size(entry)} exceeds maximum size of {LARGEST_ENTRY} bytes.")
    return entry


def _size(content: dict[str, Any]) -> int:
    return len(json.dumps(content, ensure_ascii=False).encode())


def _invalid(why: str) -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, why, "badRequest")
