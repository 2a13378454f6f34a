"""The bytes of one request on their way over a socket: paced by the throttle, struck by the request's fault."""

from __future__ import annotations

import socket
import struct
from io import BufferedReader
from typing import Protocol

from infra.local.storage.errors import ApiError, Refused
from infra.local.storage.faults import Fault, Faults
from infra.local.storage.memory import Data, Filling, Pool
from infra.local.storage.throttle import Pace

_SCRATCH_BYTES = 256 << 10
_LINE_LIMIT = 4096
_TEXT_LIMIT = 16 << 20


_THROTTLED_RCVBUF = 128 << 10


class Hangup(Exception):
    """End this connection now: with a reset, or orderly in the middle of what was being sent."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__("reset" if reset else "closed early")
        self.reset = reset


def reset_on_close(connection: socket.socket) -> None:
    """Make closing this socket send RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Flow:
    """One direction of one request. Ask `take` how many bytes may move, then say which did with `passed`."""

    def __init__(self, pace: Pace | None = None, faults: Faults | None = None) -> None:
        """Without pace and faults nothing hinders it."""
        self._pace = pace
        self._faults = faults
        self._fault: Fault | None = None
        self._flip = False
        self.moved = 0

    def arm(self, fault: Fault) -> None:
        """Let `fault` strike when its offset is reached; kinds that don't strike moving bytes are ignored."""
        if fault.kind in ("reset", "stall", "truncate", "flip"):
            self._fault = fault

    @property
    def throttled(self) -> bool:
        return self._pace is not None and self._pace.limited

    @property
    def armed(self) -> bool:
        return self._fault is not None

    def take(self, most: int) -> int:
        """Wait out or raise what strikes here; then how many bytes may move next, at most `most`."""
        if self._faults is None or self._pace is None:
            return most
        self.check_outage()
        most = self._pace.piece(most)
        fault = self._fault
        if fault is None:
            return most
        if self.moved < fault.after_bytes and not fault.after_done:
            return min(most, fault.after_bytes - self.moved)
        self._fault = None
        if fault.kind in ("reset", "truncate"):
            raise Hangup(reset=fault.kind == "reset")
        if fault.kind == "stall":
            self._faults.stall(fault.seconds)
            return most
        self._flip = True
        return 1

    def passed(self, count: int) -> None:
        """Wait until `count` more bytes may have moved."""
        self.moved += count
        if self._pace is not None:
            self._pace.passed(count)
        # What came while an outage began is lost in it.
        self.check_outage()

    def check_outage(self) -> None:
        """Wait out a blackhole; Hangup where connections are reset."""
        outage = self._faults.outage() if self._faults else None
        if self._faults and outage == "blackhole":
            self._faults.wait_out_blackhole()
        elif outage == "reset":
            raise Hangup(reset=True)

    def flip_due(self) -> bool:
        """True once, if the piece just taken must be damaged."""
        due, self._flip = self._flip, False
        return due


class Body(Protocol):
    """A request's body as the API sees it."""

    length: int | None
    """Bytes announced; None while chunks are still coming."""

    def read(self) -> bytes:
        """The whole body of a request that carries no media."""

    def data(self) -> tuple[Data, int]:
        """The whole body and its CRC32C."""

    def receive(self, filling: Filling) -> None:
        """Everything that is still coming, into `filling`. On an error `filling` has what came before it."""

    def skip(self, count: int) -> None:
        """Receive and forget `count` bytes."""

    def drain(self) -> None:
        """Receive and forget what is left, so that the client reads the answer instead of a broken pipe."""


class HeldBody:
    """A body that is already here: that of an operation in a batch."""

    def __init__(self, content: bytes) -> None:
        self.length: int | None = len(content)
        self._content = content

    def read(self) -> bytes:
        return self._content

    def data(self) -> tuple[Data, int]:
        raise Refused("A batch can't carry media.")

    def receive(self, filling: Filling) -> None:
        raise Refused("A batch can't carry media.")

    def skip(self, count: int) -> None:
        raise Refused("A batch can't carry media.")

    def drain(self) -> None:
        return


class SocketBody:
    """A body received into memory as far and as fast as its flow lets it."""

    def __init__(
        self,
        connection: socket.socket,
        reader: BufferedReader,
        *,
        length: int | None,
        flow: Flow,
        pool: Pool,
    ) -> None:
        """`length` bytes are coming, None for chunked transfer coding."""
        self._connection = connection
        self._reader = reader
        self._flow = flow
        self._pool = pool
        self.length = length
        self._left = length or 0
        self._buffered = True
        if flow.throttled:  # a slow way holds few bytes; this machine's would take megabytes at once
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _THROTTLED_RCVBUF)

    def peek(self, most: int) -> bytes:
        """The first bytes of the body, left where they are."""
        if self.length is None or not self.length:
            return b""
        waiting = self._reader.peek(1)[: self.length]
        more = min(self.length, most) - len(waiting)
        if more <= 0:
            return waiting
        return waiting + self._connection.recv(more, socket.MSG_PEEK | socket.MSG_WAITALL)

    def receive(self, filling: Filling) -> None:
        if self.length is None:
            while self._next_chunk():
                self._fill(filling)
                self._reader.readline(_LINE_LIMIT)
            self.length = 0
        else:
            self._fill(filling)

    def data(self) -> tuple[Data, int]:
        filling = Filling(self._pool, self.length)
        self.receive(filling)
        return filling.data(), filling.crc32c

    def read(self) -> bytes:
        if self._left > _TEXT_LIMIT:
            raise Refused(f"The request body has {self._left} bytes, more than the {_TEXT_LIMIT} allowed here.")
        data, _ = self.data()
        return bytes(data)

    def skip(self, count: int) -> None:
        scratch = memoryview(bytearray(_SCRATCH_BYTES))
        while count and self._left:
            count -= self._receive_piece(scratch[:count])

    def drain(self) -> None:
        scratch = memoryview(bytearray(_SCRATCH_BYTES))
        while self.length is None and self._next_chunk():
            while self._left:
                self._receive_piece(scratch)
            self._reader.readline(_LINE_LIMIT)
        self.length = self.length or 0
        while self._left:
            self._receive_piece(scratch)

    def _next_chunk(self) -> bool:
        line = self._reader.readline(_LINE_LIMIT)
        try:
            self._left = int(line.split(b";")[0], 16)
        except ValueError:
            raise Hangup(reset=True) from None
        if self._left == 0:
            while self._reader.readline(_LINE_LIMIT) not in (b"\r\n", b"\n", b""):
                pass
        return self._left > 0

    def _fill(self, filling: Filling) -> None:
        while self._left:
            filling.wrote(self._receive_piece(filling.space()))

    def _receive_piece(self, space: memoryview) -> int:
        space = space[: self._flow.take(min(len(space), self._left))]
        count = self._receive_into(space)
        if count == 0:
            raise Hangup(reset=False)
        if self._flow.flip_due():
            space[0] ^= 0xFF
        self._left -= count
        self._flow.passed(count)
        return count

    def _receive_into(self, space: memoryview) -> int:
        if self.length is None:
            return self._reader.readinto(space)
        if self._buffered:
            # What came in one packet with the headers is in the reader; after that, straight from the socket.
            waiting = self._reader.peek(1)
            self._buffered = len(waiting) > len(space)
            return self._reader.readinto(space[: len(waiting)])
        try:
            return self._connection.recv_into(space, len(space), socket.MSG_WAITALL)
        except BlockingIOError:
            raise ApiError(408, "The body did not arrive in time.", reason="requestTimeout") from None


def send(connection: socket.socket, data: Data, flow: Flow) -> None:
    """Send `data` without copying it."""
    for view in data.views():
        rest = view
        while rest:
            piece = rest[: flow.take(len(rest))]
            rest = rest[len(piece) :]
            if flow.flip_due():
                piece = memoryview(bytes([piece[0] ^ 0xFF]))
            connection.sendall(piece)
            flow.passed(len(piece))
