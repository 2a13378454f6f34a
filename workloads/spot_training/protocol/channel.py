"""The unix socket between agent and trainer: length-prefixed JSON messages that can carry file descriptors.

`Connection` is the blocking side (the trainer, `spot drill`); `AsyncConnection` the agent's. Descriptors
travel as SCM_RIGHTS on the first byte of the message whose `fds` field announces them, so that an arena is
shared memory without a name: nothing is left behind in /dev/shm, whoever dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from spot_training.protocol.messages import ProtocolError, from_json, to_json

_HEADER = struct.Struct("!I")
_CHUNK = 1 << 16
_MAX_FDS = 16
_MAX_MESSAGE = 1 << 28


class Closed(ConnectionError):
    """The other side is gone."""


class _Reader:
    """Puts received bytes and descriptors together into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._fds: deque[int] = deque()

    def feed(self, data: bytes, fds: Sequence[int]) -> Iterator[tuple[Any, list[int]]]:
        """The messages that are whole now. Raises ProtocolError at the first that is none; what follows is lost."""
        self._buffer += data
        self._fds.extend(fds)
        while len(self._buffer) >= _HEADER.size:
            (length,) = _HEADER.unpack_from(self._buffer)
            if length > _MAX_MESSAGE:
                raise ProtocolError(f"message of {length} bytes is longer than {_MAX_MESSAGE}")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            message = from_json(bytes(self._buffer[_HEADER.size : end]))
            del self._buffer[:end]
            wanted = getattr(message, "fds", 0)
            if not isinstance(wanted, int) or not 0 <= wanted <= len(self._fds):
                raise ProtocolError(f"{type(message).__name__} announces {wanted} descriptors, {len(self._fds)} came")
            yield message, [self._fds.popleft() for _ in range(wanted)]

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popleft())


def _frame(message: Any) -> bytes:
    raw = to_json(message)
    return _HEADER.pack(len(raw)) + raw


def _read(sock: socket.socket) -> tuple[bytes, list[int]]:
    data, fds, _, _ = socket.recv_fds(sock, _CHUNK, _MAX_FDS)
    for fd in fds:
        os.set_inheritable(fd, False)  # recv_fds takes flags, but does not pass MSG_CMSG_CLOEXEC on
    return data, fds


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for the socket that fits into the 108 bytes of a unix address, however deep its folder is."""
    folder = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class Connection:
    """Blocking side. `send` may be called from any thread; `receive` from one."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._send_lock = threading.Lock()
        self._reader = _Reader()
        self._ready: deque[tuple[Any, list[int]]] = deque()
        self._broken: ProtocolError | None = None

    @classmethod
    def open(cls, path: Path, *, timeout: float) -> Connection:
        """Connect within `timeout` seconds; OSError when nobody listens."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(timeout)
        try:
            with _short(path) as name:
                sock.connect(name)
        except OSError:
            sock.close()
            raise
        sock.settimeout(None)
        return cls(sock)

    def send(self, message: Any, fds: Sequence[int] = ()) -> None:
        """Send one message. Raises `Closed` when the other side is gone."""
        frame = _frame(message)
        try:
            with self._send_lock:
                sent = socket.send_fds(self._sock, [frame], list(fds)) if fds else 0
                self._sock.sendall(memoryview(frame)[sent:])
        except OSError as error:
            raise Closed(str(error)) from error

    def receive(self, *, timeout: float | None = None) -> tuple[Any, list[int]]:
        """The next message and its descriptors.

        Raises:
            TimeoutError: none came within `timeout` seconds.
            Closed: the other side is gone.
            ProtocolError: the other side sent something else, after which nothing can be understood any more.
        """
        while not self._ready:
            if self._broken:
                raise self._broken
            self._sock.settimeout(timeout)
            try:
                data, fds = _read(self._sock)
            except TimeoutError:
                raise
            except OSError as error:
                raise Closed(str(error)) from error
            finally:
                with contextlib.suppress(OSError):
                    self._sock.settimeout(None)
            if not data:
                raise Closed("end of stream")
            try:
                self._ready.extend(self._reader.feed(data, fds))
            except ProtocolError as error:
                self._broken = error
        return self._ready.popleft()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._reader.close()


class AsyncConnection:
    """The agent's side of one connection, on the running event loop."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._reader = _Reader()
        self._send_lock = asyncio.Lock()
        self._inbox: asyncio.Queue[tuple[Any, list[int]] | Exception] = asyncio.Queue()
        self._loop.add_reader(sock.fileno(), self._on_readable)
        self.closed = False

    def _on_readable(self) -> None:
        try:
            data, fds = _read(self._sock)
            if not data:
                raise Closed("end of stream")
            for item in self._reader.feed(data, fds):
                self._inbox.put_nowait(item)
        except BlockingIOError:
            return
        except (OSError, ProtocolError) as error:
            self._loop.remove_reader(self._sock.fileno())
            self._inbox.put_nowait(error if isinstance(error, (Closed, ProtocolError)) else Closed(str(error)))

    async def send(self, message: Any, fds: Sequence[int] = ()) -> None:
        """Send one message. Raises `Closed` when the other side is gone."""
        frame = _frame(message)
        try:
            async with self._send_lock:
                sent = await self._send_fds(frame, fds) if fds else 0
                await self._loop.sock_sendall(self._sock, memoryview(frame)[sent:])
        except OSError as error:
            raise Closed(str(error)) from error

    async def _send_fds(self, frame: bytes, fds: Sequence[int]) -> int:
        while True:
            with contextlib.suppress(BlockingIOError):
                return socket.send_fds(self._sock, [frame], list(fds))
            writable = asyncio.Event()
            self._loop.add_writer(self._sock.fileno(), writable.set)
            try:
                await writable.wait()
            finally:
                self._loop.remove_writer(self._sock.fileno())

    async def receive(self) -> tuple[Any, list[int]]:
        """The next message and its descriptors. Raises `Closed` or `ProtocolError` at the end."""
        item = await self._inbox.get()
        if isinstance(item, Exception):
            self._inbox.put_nowait(item)
            raise item
        return item

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
            self._reader.close()


async def listen(path: Path, handle: Callable[[AsyncConnection], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """Accept connections on `path` (mode 0600), one `handle` task each. Returns a coroutine function that stops."""
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.setblocking(False)
    with _short(path) as name:
        server.bind(name)
    path.chmod(0o600)
    server.listen(16)
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(sock: socket.socket) -> None:
        connection = AsyncConnection(sock)
        try:
            await handle(connection)
        finally:
            connection.close()

    async def accept() -> None:
        while True:
            sock, _ = await loop.sock_accept(server)
            task = asyncio.create_task(serve(sock))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    accepting = asyncio.create_task(accept())

    async def stop() -> None:
        for task in (accepting, *tasks):
            task.cancel()
        await asyncio.gather(accepting, *tasks, return_exceptions=True)
        server.close()
        path.unlink(missing_ok=True)

    return stop
