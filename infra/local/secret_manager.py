"""A local stand-in for Secret Manager: the `access` method of a secret's version, over HTTP, for those who may.

with SecretManager(identify=tokens.get) as secrets:
    secrets.put("projects/p/secrets/wandb/versions/latest", b"key", readers={"vm@p.iam"})
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class SecretManager:
    """Serves on 127.0.0.1 until the block ends. `identify`: access token -> identity, None where it is unknown."""

    def __init__(self, *, identify: Callable[[str], str | None]) -> None:
        self.identify = identify
        self.secrets: dict[str, tuple[bytes, frozenset[str]]] = {}
        self._http = _Server(("127.0.0.1", 0), self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), name="secrets", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def put(self, version: str, payload: bytes, *, readers: set[str]) -> None:
        self.secrets[version] = (payload, frozenset(readers))

    def access(self, version: str, token: str) -> tuple[int, dict[str, Any]]:
        """Status and body of the answer."""
        identity = self.identify(token)
        if identity is None:
            return 401, {"error": {"code": 401, "status": "UNAUTHENTICATED"}}
        payload, readers = self.secrets.get(version, (b"", frozenset()))
        if identity not in readers:  # what does not exist looks the same to those who may not see it
            why = f"Permission 'secretmanager.versions.access' denied for resource '{version}' (or it may not exist)."
            return 403, {"error": {"code": 403, "message": why, "status": "PERMISSION_DENIED"}}
        return 200, {"name": version, "payload": {"data": base64.b64encode(payload).decode()}}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], secrets: SecretManager) -> None:
        self.secrets = secrets
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        version = self.path.removeprefix("/v1/").removesuffix(":access")
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        status, body = self.server.secrets.access(version, token)
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing about secrets is logged."""
