"""The HTTP skin of the local metadata server: headers, query, keep-alive. What is answered is in metadata.py."""

from __future__ import annotations

import contextlib
import select
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import NamedTuple, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

ROOT = "/computeMetadata/v1"
_MAX_BODY = 256 * 1024


class Reply(NamedTuple):
    status: int
    body: bytes
    content_type: str = "application/text"
    etag: str | None = None
    location: str | None = None


class Source(Protocol):
    """Who answers. Paths are relative to v1/, with their slash at the end where they have one."""

    def read(self, path: str, query: dict[str, str], connection: socket.socket) -> Reply: ...

    def write(self, path: str, body: bytes | None) -> Reply: ...

    def count(self, reply: Reply) -> None: ...


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: str, port: int, source: Source) -> None:
        super().__init__((address, port), Handler)
        self.source = source
        self.open: set[socket.socket] = set()

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's looks up our own name too: seconds where DNS is away
        self.server_name, self.server_port = "metadata", self.socket.getsockname()[1]

    def server_close(self) -> None:
        """Cut the open connections too: a kept-alive one would outlive the server and hide its successor."""
        super().server_close()
        for connection in tuple(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no error of ours; anything else keeps its traceback."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body leave in one segment
    timeout = 120  # seconds an idle connection keeps its thread

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        super().finish()

    def do_GET(self) -> None:
        self._serve(None)

    def do_PUT(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > _MAX_BODY:
            self.close_connection = True  # its body was not read: the next request can't be told from it
            self._send(Reply(411, f"Give a Content-Length of at most {_MAX_BODY}.\n".encode()))
            return
        self._serve(self.rfile.read(int(length)))

    def do_DELETE(self) -> None:
        self._serve(None)

    def _serve(self, body: bytes | None) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        if "X-Forwarded-For" in self.headers:
            self._send(Reply(403, b"Request came through a proxy: X-Forwarded-For is refused.\n"))
        elif path in ("/", "/computeMetadata/"):  # what Google's clients ping, with or without the header
            self._send(Reply(200, b"computeMetadata/\n" if path == "/" else b"v1/\n"))
        elif self.headers.get("Metadata-Flavor") != "Google":
            self._send(Reply(403, b"Missing required header: Metadata-Flavor: Google\n"))
        elif path == ROOT:
            self._send(Reply(301, b"", location=f"{ROOT}/"))
        elif not path.startswith(ROOT + "/"):
            self._send(Reply(404, b"Not found\n"))
        elif self.command == "GET":
            query = dict(parse_qsl(url.query, keep_blank_values=True))
            self._send(self.server.source.read(path.removeprefix(ROOT + "/"), query, self.connection), url.query)
        else:
            self._send(self.server.source.write(path.removeprefix(ROOT + "/"), body))

    def _send(self, reply: Reply, query: str = "") -> None:
        self.server.source.count(reply)
        self.send_response_only(reply.status)
        self.send_header("Metadata-Flavor", "Google")
        self.send_header("Server", "Metadata Server for VM")
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        if reply.etag is not None:
            self.send_header("ETag", reply.etag)
        if reply.location is not None:
            self.send_header("Location", reply.location + (f"?{query}" if query else ""))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: one line a request would drown the demo."""


def hung_up(connection: socket.socket) -> bool:
    """Whether the client closed its side while its request waits."""
    try:
        readable, _, _ = select.select([connection], [], [], 0)
        return bool(readable) and connection.recv(1, socket.MSG_PEEK) == b""
    except (OSError, ValueError):
        return True
