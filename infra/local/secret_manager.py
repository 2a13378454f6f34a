"""A local stand-in for Secret Manager: the `access` method of a secret's version, over HTTP, for those who may.

with SecretManager(identify=tokens.get) as secrets:
    secrets.put("projects/p/secrets/wandb/versions/latest", b"key", readers={"vm@p.iam"})
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from infra.local.json_server import JsonServer, Refused


class SecretManager(JsonServer):
    """Serves on 127.0.0.1 until the block ends. `identify`: access token -> identity, None where it is unknown."""

    def __init__(self, *, identify: Callable[[str], str | None]) -> None:
        super().__init__()
        self.identify = identify
        self.secrets: dict[str, tuple[bytes, frozenset[str]]] = {}

    def put(self, version: str, payload: bytes, *, readers: set[str]) -> None:
        self.secrets[version] = (payload, frozenset(readers))

    def answer(self, method: str, target: str, token: str, body: dict[str, Any]) -> dict[str, Any]:
        version = target.removeprefix("/v1/").removesuffix(":access")
        identity = self.identify(token)
        if identity is None:
            raise Refused(HTTPStatus.UNAUTHORIZED, "Request had invalid authentication credentials.", "authError")
        payload, readers = self.secrets.get(version, (b"", frozenset()))
        if identity not in readers:  # what does not exist looks the same to those who may not see it
            why = f"Permission 'secretmanager.versions.access' denied for resource '{version}' (or it may not exist)."
            raise Refused(HTTPStatus.FORBIDDEN, why, "forbidden")
        return {"name": version, "payload": {"data": base64.b64encode(payload).decode()}}
