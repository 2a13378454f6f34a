"""JSON over HTTP, as Google's REST APIs speak it: what the local stand-ins for them share."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

Json = dict[str, Any]


class Refused(Exception):
    """An answer other than 200, with the text and the word for it that are in Google's error body. `detailed`: as
    newer APIs tell the word (google.rpc.ErrorInfo), not as Compute and Storage do."""

    def __init__(self, status: HTTPStatus, message: str, reason: str, *, detailed: bool = False) -> None:
        super().__init__(message)
        self.status, self.reason, self.detailed = status, reason, detailed

    def body(self) -> Json:
        """Google's error body (cloud.google.com/apis/design/errors)."""
        if self.detailed:
            info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": self.reason}
            told: Json = {"details": [info] if self.reason else []}
        else:
            told = {"errors": [{"message": str(self), "domain": "global", "reason": self.reason}]}
        return {"error": {"code": self.status.value, "message": str(self), **told}}


class JsonServer(ABC):
    """Serves on `address` until the block ends, a thread a connection; port 0 is any free one."""

    def __init__(self, *, address: str = "127.0.0.1", port: int = 0) -> None:
        self._http = _Server((address, port), self)
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.05,), name=type(self).__name__, daemon=True
        )

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self._http.server_address[:2])

    @abstractmethod
    def answer(self, method: str, target: str, token: str, body: Json) -> Json:
        """The body of the answer to a request with this bearer token, empty where it has none. Raises Refused."""

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

    def __init__(self, address: tuple[str, int], service: JsonServer) -> None:
        self.service = service
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        try:
            body = json.loads(self.rfile.read(length) or b"{}")
            answer = self.server.service.answer(self.command, self.path, token if scheme == "Bearer" else "", body)
            status = HTTPStatus.OK
        except Refused as error:
            status, answer = error.status, error.body()
        except ValueError:
            status = HTTPStatus.BAD_REQUEST
            answer = {"error": {"code": status.value, "message": "Parse Error", "errors": []}}
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing goes to stderr: what was asked is the service's to remember, and some of it is secret."""
