"""HTTP for the hot path: kept connections, memory sent and received in place, retries up to a deadline.

`http.client` rather than a session library: a part goes from the arena to the socket and back without a
copy. Measured against the others in the README.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import random
import select
import socket
import ssl
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from agent.store.base import Buffer, Unavailable
from agent.store.connect import connect
from agent.store.credentials import RETRIED, Token

_PAUSE = 0.1  # seconds before the first retry; doubles
_LONGEST_PAUSE = 2.0
_STALL = 10.0  # seconds without a byte after which a connection is given up, at most
_STALL_SHARE = 3  # ... and at most this fraction of the call's time: a hung connection leaves time for others
_IDLE = 200.0  # seconds after which an idle connection is not trusted any more
_IDLE_PING = 60.0  # seconds after which `warm` uses an idle connection to keep it open
_LOOK = 0.2  # seconds between two looks at how much the kernel has still to send
_CHUNK = 4 << 20
_REFUSALS = 5  # tokens refused in one call: the metadata server may keep a spent one a while, a grant may spread
_LIMITED = frozenset({"rateLimitExceeded", "userRateLimitExceeded"})  # a 403 that means "slower"
_NO_BUCKET = "The specified bucket does not exist"


@dataclass(frozen=True)
class Reply:
    """An answer. `body` is where the question wanted it."""

    status: int
    headers: http.client.HTTPMessage
    body: memoryview

    def reason(self) -> str:
        """The server's own words, in one line."""
        text = self._error().get("message") or bytes(self.body[:200]).decode("utf-8", "replace")
        return " ".join(str(text).split()) or f"status {self.status}"

    def kind(self) -> str:
        """The server's word for why it refused, such as `forbidden`; empty if it gave none."""
        errors = self._error().get("errors")
        first = errors[0] if isinstance(errors, list) and errors else None
        return str(first.get("reason", "")) if isinstance(first, dict) else ""

    def lacks_bucket(self) -> bool:
        """Whether a 404 speaks of the bucket, not of an object."""
        return self.status == 404 and _NO_BUCKET in self.reason()

    def document(self) -> dict[str, Any]:
        """The JSON object that it holds."""
        try:
            parsed = json.loads(bytes(self.body))
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            raise Unavailable(f"an answer that is not Cloud Storage's (is a proxy between?): {self.reason()}")
        return parsed

    def _error(self) -> dict[str, Any]:
        if self.status < http.HTTPStatus.BAD_REQUEST:  # an object's own bytes are nobody's words
            return {}
        try:
            error = json.loads(bytes(self.body))["error"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return {}
        return error if isinstance(error, dict) else {}


class Transport:
    """Connections to one endpoint, shared by all threads."""

    def __init__(self, endpoint: str, token: Token) -> None:
        self.token = token
        self._endpoint = endpoint
        self._tls = ssl.create_default_context() if endpoint.startswith("https:") else None
        self._idle: list[_Connection] = []  # the last used is the first used again
        self._lock = threading.Lock()

    def request(
        self,
        method: str,
        target: str,
        *,
        deadline: float,
        doing: str,
        body: Sequence[Buffer] = (),
        content_type: str = "",
        into: Callable[[int], memoryview] | None = None,
    ) -> Reply:
        """Ask until there is an answer that is worth having, or raise `Unavailable` at the deadline.

        `body` is sent piece by piece, none of them copied. `into(size)` gives the memory for the body of a
        200; otherwise new memory is taken. `doing` says in errors what this was for.
        """
        views = [memoryview(piece).cast("B") for piece in body]
        headers = {"Content-Type": content_type} if content_type else {}
        stall = max(0.01, min(_STALL, (deadline - time.monotonic()) / _STALL_SHARE))
        tries = refused = 0
        while True:
            tries += 1
            credentials = self.token.headers(deadline)
            try:
                reply = self._try(_Question(method, target, headers | credentials, views, into), deadline, stall)
                if reply.status == 401 and credentials and refused < _REFUSALS:
                    refused += 1
                    self.token.reject(credentials, deadline)
                    if refused == 1:
                        continue
                elif reply.status not in RETRIED and reply.kind() not in _LIMITED:
                    return reply
                failure = f"status {reply.status}, {reply.reason()}"
            except (OSError, http.client.HTTPException) as error:
                failure = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            pause = min(_LONGEST_PAUSE, _PAUSE * 2 ** (tries - 1)) * random.uniform(0.5, 1.0)  # noqa: S311
            if time.monotonic() + pause >= deadline:
                raise Unavailable(f"{doing}: given up after {tries} tries; the last: {failure}")
            time.sleep(pause)

    def warm(self, connections: int, target: str, deadline: float) -> None:
        """Have `connections` open, by asking for `target` on those that are new or long unused."""
        self.token.renew(deadline)
        taken = [self._take() for _ in range(connections)]
        question = _Question("GET", target, self.token.headers(deadline), [], None)
        try:
            for connection in taken:
                if connection.idle_for() > _IDLE_PING:
                    reply = connection.ask(question, deadline, deadline - time.monotonic())
                    if reply.status in RETRIED:
                        raise http.client.HTTPException(f"status {reply.status}, {reply.reason()}")
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"opening connections to {self._endpoint}: {error}") from error
        finally:
            for connection in reversed(taken):
                self._give_back(connection)

    def _try(self, question: _Question, deadline: float, stall: float) -> Reply:
        while True:
            connection = self._take()
            fresh = connection.idle_for() == float("inf")
            try:
                return connection.ask(question, deadline, stall)
            except (ConnectionError, http.client.BadStatusLine):
                if fresh:
                    raise
                # The server had closed it while it lay idle: that is no failure.
            finally:
                self._give_back(connection)

    def _take(self) -> _Connection:
        with self._lock:
            while self._idle:
                connection = self._idle.pop()
                if connection.usable():
                    return connection
        return _Connection(self._endpoint, self._tls)

    def _give_back(self, connection: _Connection) -> None:
        if connection.idle_for() < float("inf"):
            with self._lock:
                self._idle.append(connection)


def _unsent(sock: socket.socket) -> int:
    """Bytes that were handed to the kernel and that the other side has not acknowledged."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


@dataclass(frozen=True)
class _Question:
    method: str
    target: str
    headers: Mapping[str, str]
    body: list[memoryview]
    into: Callable[[int], memoryview] | None


class _Connection:
    """One connection; opened by its first question, closed by anything that goes wrong."""

    def __init__(self, endpoint: str, tls: ssl.SSLContext | None) -> None:
        host = urlsplit(endpoint).netloc
        self._http = http.client.HTTPSConnection(host, context=tls) if tls else http.client.HTTPConnection(host)
        vars(self._http)["_create_connection"] = connect  # http.client's own gives each address the whole time
        self._used = float("-inf")

    def idle_for(self) -> float:
        """Seconds since the last answer; infinite if it is not open."""
        return time.monotonic() - self._used

    def usable(self) -> bool:
        """True unless the server has closed it or is likely to have."""
        if self.idle_for() < _IDLE:
            waiting = select.poll()
            waiting.register(self._http.sock, select.POLLIN)
            if not waiting.poll(0):
                return True
        self.close()
        return False

    def close(self) -> None:
        self._used = float("-inf")
        self._http.close()

    def ask(self, question: _Question, deadline: float, stall: float) -> Reply:
        """Send and receive; no wait for a single byte is longer than `stall` seconds."""
        try:
            self._await(deadline, stall)
            sent = self._send(question, deadline, stall)
            self._await_answer(deadline, stall)
            response = self._http.getresponse()
            reply = self._receive(response, question.into, deadline, stall)
            if not sent or response.will_close:
                self.close()
            else:
                response.close()
                self._used = time.monotonic()
            return reply
        except BaseException:
            self.close()
            raise

    def _await(self, deadline: float, stall: float) -> None:
        """Bound the next wait on the socket."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("out of time")
        self._http.timeout = min(stall, left)
        if self._http.sock:
            self._http.sock.settimeout(self._http.timeout)

    def _await_answer(self, deadline: float, stall: float) -> None:
        """Wait until it begins. Bytes of a slow upload that the kernel still sends, perhaps megabytes, are no stall."""
        sock = self._http.sock
        answer = select.poll()
        answer.register(sock, select.POLLIN)
        left, since = _unsent(sock), time.monotonic()
        while not answer.poll(1000 * max(0.0, min(_LOOK, deadline - time.monotonic()))):
            now, before = time.monotonic(), left
            left = _unsent(sock)
            if left < before:
                since = now
            elif now - since > stall or now >= deadline:
                raise TimeoutError("no answer")
        self._await(deadline, stall)

    def _send(self, question: _Question, deadline: float, stall: float) -> bool:
        """Send it all; False if the server stopped listening, which it may do to answer early."""
        self._http.putrequest(question.method, question.target)
        for name, value in question.headers.items():
            self._http.putheader(name, value)
        if question.method not in ("GET", "DELETE"):
            self._http.putheader("Content-Length", str(sum(map(len, question.body))))
        self._http.endheaders()
        try:
            for view in question.body:
                rest = view
                while rest:
                    self._await(deadline, stall)
                    rest = rest[self._http.sock.send(rest[:_CHUNK]) :]
        except (BrokenPipeError, ConnectionResetError):
            # If there is no answer to be read, reading it says so.
            return False
        return True

    def _receive(
        self,
        response: http.client.HTTPResponse,
        into: Callable[[int], memoryview] | None,
        deadline: float,
        stall: float,
    ) -> Reply:
        if response.status < 200 or 300 <= response.status < 400:
            # Cloud Storage sends none of these here: something between us and it does.
            raise http.client.HTTPException(f"status {response.status}: is a proxy between?")
        if response.chunked:
            return self._receive_chunks(response, into, deadline, stall)
        size = response.length
        if size is None:
            raise http.client.HTTPException("the answer has no Content-Length: is this a proxy's?")
        view = into(size) if into and response.status == 200 else memoryview(bytearray(size))
        done = 0
        while done < size:
            self._await(deadline, stall)
            # readinto() of the response would wait for all of it under one timeout per packet.
            count = response.fp.readinto1(view[done:])
            if not count:
                raise http.client.IncompleteRead(b"", size - done)
            done += count
        return Reply(response.status, response.headers, view)

    def _receive_chunks(
        self,
        response: http.client.HTTPResponse,
        into: Callable[[int], memoryview] | None,
        deadline: float,
        stall: float,
    ) -> Reply:
        """An answer whose size shows at its end only: it is copied once."""
        body = bytearray()
        while True:
            self._await(deadline, stall)
            piece = response.read1(_CHUNK)
            if not piece:
                break
            body += piece
        view = memoryview(body)
        if into and response.status == 200:
            view = into(len(body))
            view[:] = body
        return Reply(response.status, response.headers, view)
