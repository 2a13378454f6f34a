"""One HTTP connection: a question and its answer within one deadline, memory sent and received in place.

`http.client` rather than a session library: a part goes from the arena to the socket and back without a
copy. Its waits are bounded one by one there; here each is bounded by what is left of the whole.
"""

from __future__ import annotations

import fcntl
import http.client
import io
import select
import socket
import ssl
import sys
import termios
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

from agent.store.connect import connect
from agent.store.proxy import Proxy
from agent.store.reply import Reply

_IDLE = 200.0  # seconds after which an idle connection is not trusted any more
_LOOK = 0.2  # seconds between two looks at how much the kernel has still to send
_CHUNK = 4 << 20
_TLS_CHUNK = 256 << 10  # TLS gives a whole piece one wait, however far it gets with it


@dataclass(frozen=True)
class Question:
    """`body` is sent piece by piece, none of them copied. `into(size)` gives the memory for the body of a 200; without
    it new memory is taken."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: list[memoryview]
    into: Callable[[int], memoryview] | None = None


class Connection:
    """To one endpoint; opened by its first question, closed by anything that goes wrong."""

    def __init__(self, endpoint: str, tls: ssl.SSLContext | None, proxy: Proxy | None) -> None:
        host = urlsplit(endpoint).netloc
        to = (proxy.host, proxy.port) if proxy else (host, None)
        self._http = http.client.HTTPSConnection(*to, context=tls) if tls else http.client.HTTPConnection(*to)
        self._to_proxy: dict[str, str] = {}
        self._base = ""
        if proxy and tls:
            self._http.set_tunnel(host, headers=proxy.headers)
        elif proxy:
            self._to_proxy, self._base = proxy.headers, endpoint
        self._piece = _TLS_CHUNK if tls else _CHUNK
        vars(self._http)["_create_connection"] = connect  # http.client's own gives each address the whole time
        vars(self._http)["response_class"] = self._response
        self._used = float("-inf")
        self._end = self._stall = 0.0
        self._head = False  # whether the next byte begins an answer: from there on its head has `stall` seconds

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

    def ask(self, question: Question, deadline: float, stall: float) -> Reply:
        """Send and receive, all of it before `deadline`; no wait for a byte, nor for the whole head of the answer, is
        longer than `stall` seconds."""
        self._end, self._stall = deadline, stall
        try:
            sent = self._send(question)
            self._head = True
            response = self._http.getresponse()
            self._head, self._end = False, deadline
            reply = self._receive(response, question)
            if not sent or response.will_close:
                self.close()
            else:
                response.close()
                self._used = time.monotonic()
            return reply
        except BaseException:
            self.close()
            raise

    def _bound(self, sock: socket.socket | None, most: float) -> None:
        """Bound the next wait on the socket."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("out of time")
        self._http.timeout = min(most, left)
        if sock:
            sock.settimeout(self._http.timeout)

    def _response(self, sock: socket.socket, **how: Any) -> http.client.HTTPResponse:
        return http.client.HTTPResponse(cast("socket.socket", _Bounded(sock, self._read)), **how)

    def _read(self, sock: socket.socket, buffer: Any) -> int:
        """Wait for bytes. Those of a slow upload that the kernel still sends, perhaps megabytes, are no stall."""
        left, since = _unsent(sock), time.monotonic()
        while True:
            self._bound(sock, min(_LOOK, self._stall))
            try:
                count = sock.recv_into(buffer)
                break
            except TimeoutError:
                before, left, now = left, _unsent(sock), time.monotonic()
                if left < before:
                    since = now
                elif now - since >= self._stall:
                    raise TimeoutError("no answer") from None
        if self._head:
            self._head, self._end = False, min(self._end, time.monotonic() + self._stall)
        return count

    def _answer(self) -> select.poll:
        answer = select.poll()
        answer.register(self._http.sock, select.POLLIN)
        return answer

    def _send(self, question: Question) -> bool:
        """Send it all; False if the server stopped listening, which it may do to answer early."""
        self._bound(self._http.sock, self._stall)
        if self._http.sock is None:
            self._http.connect()
            self._bound(self._http.sock, self._stall)
        headers = {**self._to_proxy, **question.headers}
        self._http.putrequest(
            question.method, self._base + question.target, skip_accept_encoding="Accept-Encoding" in headers,
            skip_host=bool(self._base),
        )  # fmt: skip
        if self._base:
            self._http.putheader("Host", urlsplit(self._base).netloc)
        for name, value in headers.items():
            self._http.putheader(name, value)
        if question.method not in ("GET", "DELETE"):
            self._http.putheader("Content-Length", str(sum(map(len, question.body))))
        self._http.endheaders()
        try:
            for view in question.body:
                rest = view
                while rest:
                    self._bound(self._http.sock, self._stall)
                    rest = rest[self._http.sock.send(rest[: self._piece]) :]
        except (BrokenPipeError, ConnectionResetError):
            # If there is no answer to be read, reading it says so.
            return False
        except TimeoutError:
            if not self._answer().poll(0):
                raise
            return False
        return True

    def _receive(self, response: http.client.HTTPResponse, question: Question) -> Reply:
        if response.status < 200 or 300 <= response.status < 400:
            # Cloud Storage sends none of these here: something between us and it does.
            raise http.client.HTTPException(f"status {response.status}: is a proxy between?")
        coding = response.headers.get("Content-Encoding", "identity").lower()
        if coding not in ("identity", question.headers.get("Accept-Encoding")):
            raise http.client.HTTPException(f"the answer came encoded ({coding}), unasked: is a proxy between?")
        into = question.into if response.status == 200 else None
        if response.chunked:
            return self._receive_chunks(response, into)
        size = response.length
        if size is None:
            raise http.client.HTTPException("the answer has no Content-Length: is this a proxy's?")
        view = into(size) if into else memoryview(bytearray(size))
        done = 0
        while done < size:
            # readinto() of the response would copy what it reads beyond its buffer.
            count = response.fp.readinto1(view[done:])
            if not count:
                raise http.client.IncompleteRead(b"", size - done)
            done += count
        return Reply(response.status, response.headers, view)

    def _receive_chunks(self, response: http.client.HTTPResponse, into: Callable[[int], memoryview] | None) -> Reply:
        """An answer whose size shows at its end only: it is copied once."""
        body = bytearray()
        while piece := response.read1(_CHUNK):
            body += piece
        view = memoryview(body)
        if into:
            view = into(len(body))
            view[:] = body
        return Reply(response.status, response.headers, view)


_Read = Callable[[socket.socket, Any], int]


class _Bounded:
    """A socket as `http.client.HTTPResponse` needs it, each read of which is bounded anew: a byte now and then would
    else keep it reading for ever."""

    def __init__(self, sock: socket.socket, read: _Read) -> None:
        self._sock, self._read = sock, read

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reading(self._sock, self._read))


class _Reading(io.RawIOBase):
    def __init__(self, sock: socket.socket, read: _Read) -> None:
        self._sock, self._read = sock, read
        self._open = sock.makefile("rb", buffering=0)  # while it is, so is the socket

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._read(self._sock, buffer)

    def close(self) -> None:
        self._open.close()
        super().close()


def _unsent(sock: socket.socket) -> int:
    """Bytes that were handed to the kernel and that the other side has not acknowledged."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
