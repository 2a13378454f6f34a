"""The HTTP server: one thread per connection, HTTP/1.1 with keep-alive."""

from __future__ import annotations

import json
import socket
import socketserver
import struct
import time
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BufferedReader
from urllib.parse import parse_qsl, urlsplit

from infra.local.storage import batch
from infra.local.storage.errors import ApiError
from infra.local.storage.faults import Fault, Faults
from infra.local.storage.flow import Body, Flow, Hangup, HeldBody, SocketBody, reset_on_close, send
from infra.local.storage.iam import Iam
from infra.local.storage.local import CONTROL_PREFIX, LocalApi
from infra.local.storage.memory import Data, Pool
from infra.local.storage.messages import Request, Response, error_response
from infra.local.storage.objects import Storage
from infra.local.storage.routes import Target, find_target
from infra.local.storage.seen import Seen, SeenLog
from infra.local.storage.throttle import Throttles
from infra.local.storage.transfers import TransferApi

# A connection that neither sends nor takes a byte for so long is given up.
_SILENCE_S = 700
_PEEK_BYTES = 64 << 10
_SMALL_ANSWER = 16 << 10
_WRONG_CRC32C = "AAAAAA=="
_WRONG_MD5 = "AAAAAAAAAAAAAAAAAAAAAA=="


@dataclass
class World:
    """Everything that connections share."""

    pool: Pool
    storage: Storage = field(default_factory=Storage)
    iam: Iam = field(default_factory=Iam)
    faults: Faults = field(default_factory=Faults)
    throttles: Throttles = field(default_factory=Throttles)
    seen: SeenLog = field(default_factory=SeenLog)

    def __post_init__(self) -> None:
        self.api = TransferApi(self.storage, self.iam, self.pool)
        self.local = LocalApi(
            storage=self.storage,
            iam=self.iam,
            faults=self.faults,
            throttles=self.throttles,
            seen=self.seen,
            sessions=self.api.sessions,
        )


class StorageServer(socketserver.ThreadingTCPServer):
    """Listens on loopback, or on `address` where VMs are hosts of their own; `url` is for STORAGE_EMULATOR_HOST."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self, port: int, world: World, *, address: str = "127.0.0.1") -> None:
        self.world = world
        super().__init__((address, port), Connection)

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self.server_address)

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        # The default sends FIN first; a fault's reset must be the only thing the client sees.
        self.close_request(request)


class Connection(BaseHTTPRequestHandler):
    """One connection's requests, one after the other."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: StorageServer

    def setup(self) -> None:
        super().setup()
        timeval = struct.pack("ll", _SILENCE_S, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)

    def handle(self) -> None:
        try:
            super().handle()
        except Hangup as hangup:
            if hangup.reset:
                reset_on_close(self.connection)
        except (ConnectionError, BlockingIOError):
            pass  # The client is gone, or silent for too long.

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing: the log of requests is kept in memory and read through the control API."""

    def serve(self) -> None:
        """Answer one request."""
        url = urlsplit(self.path)
        if url.path.startswith(CONTROL_PREFIX):
            self._serve_control(url.path, url.query)
            return
        Exchange(self, url.path, url.query).run()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = serve  # noqa: N815 (the names the base class looks up)

    def body(self, flow: Flow) -> SocketBody:
        """This request's body; 411 without a usable length."""
        length: int | None = None
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            text = self.headers.get("Content-Length", "0")
            if not text.isdigit():
                raise ApiError(411, f"Invalid Content-Length: {text!r}.")
            length = int(text)
        assert isinstance(self.rfile, BufferedReader)
        return SocketBody(self.connection, self.rfile, length=length, flow=flow, pool=self.server.world.pool)

    def answer(self, response: Response, flow: Flow) -> None:
        """Send an answer whole; the body only if this is not a HEAD."""
        bodiless = response.status in (204, 304)
        head = [f"HTTP/1.1 {response.status} {_phrase(response.status)}", "Server: local-storage"]
        for key, value in response.headers.items():
            head += [f"{key}: {each}" for each in (value.split(",") if key == "X-Goog-Hash" else [value])]
        if not bodiless:
            head.append(f"Content-Length: {response.data.size}")
        head += ["", ""]
        top = "\r\n".join(head).encode("latin-1", "replace")
        if bodiless or self.command == "HEAD":
            self.connection.sendall(top)
        elif response.data.size <= _SMALL_ANSWER and not flow.armed:
            self.connection.sendall(top + bytes(response.data))
            flow.passed(response.data.size)
        else:
            self.connection.sendall(top)
            send(self.connection, response.data, flow)

    def _serve_control(self, path: str, query: str) -> None:
        free = Flow()
        try:
            content = self.body(free).read()
            response = self.server.world.local.handle(self.command, path.removeprefix(CONTROL_PREFIX), query, content)
        except ApiError as error:
            response = error_response(error)
        self.answer(response, free)


def _phrase(status: int) -> str:
    try:
        return "Resume Incomplete" if status == 308 else HTTPStatus(status).phrase
    except ValueError:
        return "Status"


class Exchange:
    """One request to the API and its answer, with what faults and throttle make of them."""

    def __init__(self, connection: Connection, path: str, query_string: str) -> None:
        self._connection = connection
        self._world = connection.server.world
        self._path = path
        self._query_string = query_string
        self._target = find_target(connection.command, path)
        self._up: Flow = Flow(self._world.throttles.upload(), self._world.faults)
        self._down: Flow = Flow(self._world.throttles.download(), self._world.faults)
        self._fault: Fault | None = None
        self._name = self._target.about
        self._identity = ""
        self._status = 0
        self._number, self._at, self._begun = self._world.seen.next_number(), time.time(), time.monotonic()

    def run(self) -> None:
        """Do it all; Hangup where the connection must end."""
        try:
            self._serve()
        finally:
            self._log(self._down.moved)

    def _log(self, sent: int) -> None:
        self._world.seen.put(
            Seen(
                number=self._number,
                at=self._at,
                seconds=time.monotonic() - self._begun,
                method=self._connection.command,
                path=self._path,
                action=self._target.action,
                bucket=self._target.bucket,
                name=self._name,
                identity=self._identity,
                status=self._status,
                received=self._up.moved,
                sent=sent,
                fault=self._fault.kind if self._fault else "",
            )
        )

    def _serve(self) -> None:
        world = self._world
        self._up.check_outage()
        if world.faults.outage() == "unavailable":
            response = error_response(ApiError(503, "Service Unavailable (outage)"))
            self._connection.body(self._up).drain()
        else:
            response = self._carry_out()
        world.throttles.first_byte()
        self._down.check_outage()
        self._status = response.status
        # Already now: who has read the answer must find its request in the log.
        self._log(response.data.size)
        self._connection.answer(response, self._down)

    def _carry_out(self) -> Response:
        """The answer, after what the request's fault does before and after it is carried out."""
        try:
            body = self._connection.body(self._up)
            self._name = self._name or self._named_in(body)
        except ApiError as error:
            self._connection.close_connection = True  # Where this body ends is unknown.
            return error_response(error)
        fault = self._fault = self._world.faults.pick(self._connection.command, self._target.action, self._name)
        if fault is None:
            return self._respond(body)
        injected = ApiError(fault.status, f"Injected by a fault rule: {fault.status}")
        if fault.kind == "status" and not fault.after_done:
            body.drain()
            return error_response(injected)
        if fault.moves_with_body and body.length != 0:
            self._up.arm(fault)
        elif not fault.after_done:
            self._down.arm(fault)
        if fault.after_bytes == 0 and not fault.after_done and fault.kind in ("reset", "stall"):
            (self._up if self._up.armed else self._down).take(1)
        response = self._respond(body)
        if fault.after_done:
            if fault.kind == "status":
                return error_response(injected)
            self._down.arm(fault)
            self._down.take(1)
        return with_wrong_checksum(response) if fault.kind == "wrong_checksum" else response

    def _respond(self, body: SocketBody) -> Response:
        try:
            self._identity = self._world.iam.identify(self._connection.headers.get("Authorization"))
            if self._target.operation == "batch":
                response = self._batch(body.read())
            else:
                response = self._world.api.handle(
                    self._request(self._connection.command, self._target, self._query_string, body)
                )
        except ApiError as error:
            response = error_response(error)
        body.drain()
        return response

    def _request(
        self,
        method: str,
        target: Target,
        query: str,
        body: Body,
        headers: Message | None = None,
    ) -> Request:
        mine = self._connection.headers
        host = f"http://{mine.get('Host', '127.0.0.1')}"
        return Request(method, target, query, headers or mine, body, host, self._identity)

    def _batch(self, content: bytes) -> Response:
        answers = []
        for part in batch.parse_batch(self._connection.headers.get("Content-Type", ""), content):
            url = urlsplit(part.url)
            target = find_target(part.method, url.path)
            try:
                if target.operation in ("batch", "upload"):
                    raise ApiError(400, "A batch can't hold uploads or another batch.")
                request = self._request(part.method, target, url.query, HeldBody(part.content), part.headers)
                answer = self._world.api.handle(request)
            except ApiError as error:
                answer = error_response(error)
            answers.append((part, answer.status, answer.headers, bytes(answer.data)))
        content_type, data = batch.format_batch(answers)
        return Response(200, {"Content-Type": content_type}, data)

    def _named_in(self, body: SocketBody) -> str:
        """The object's name where the path does not have it: in the query, the body's metadata or the session."""
        query = dict(parse_qsl(self._query_string))
        if self._target.operation == "object_list":
            return query.get("prefix", "")
        if self._target.operation != "upload":
            return ""
        if "upload_id" in query:
            return self._world.api.sessions.name_of(query["upload_id"])
        if "name" in query:
            return query["name"]
        head = body.peek(_PEEK_BYTES).decode("utf-8", "replace")
        try:
            metadata, _ = json.JSONDecoder().raw_decode(head, head.index("{"))
        except ValueError:
            return ""
        return str(metadata.get("name", ""))


def with_wrong_checksum(response: Response) -> Response:
    """The same answer with checksums that are not those of the object."""
    headers = dict(response.headers)
    if "X-Goog-Hash" in headers:
        headers["X-Goog-Hash"] = f"crc32c={_WRONG_CRC32C},md5={_WRONG_MD5}"
        return Response(response.status, headers, response.data)
    if not headers.get("Content-Type", "").startswith("application/json"):
        return response
    document = json.loads(bytes(response.data))
    for resource in [document, document.get("resource", {}), *document.get("items", [])]:
        if "crc32c" in resource:
            resource["crc32c"] = _WRONG_CRC32C
        if "md5Hash" in resource:
            resource["md5Hash"] = _WRONG_MD5
    return Response(response.status, headers, Data.of(json.dumps(document).encode()))
