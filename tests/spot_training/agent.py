"""An agent of a few lines, for tests of the session: it listens on a real socket and says what it is told to."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spot_training.protocol.channel import Closed, Connection
from spot_training.protocol.messages import Heartbeat, Welcome

PATIENCE_S = 20.0
FRESH = Welcome(attempt=1, busy=[], restore=None, step=0, state={}, every_steps=None, milestone_steps=None)


class Agent:
    """Takes one trainer after the other. `heard` has what they said, in order."""

    def __init__(self, path: Path) -> None:
        self.heard: queue.Queue[Any] = queue.Queue()
        self.all: list[Any] = []
        self.connections: queue.Queue[Connection] = queue.Queue()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            connection = Connection(sock)
            self.connections.put(connection)
            threading.Thread(target=self._hear, args=(connection,), daemon=True).start()

    def _hear(self, connection: Connection) -> None:
        try:
            while True:
                message, _ = connection.receive()
                self.all.append(message)
                self.heard.put(message)
        except (Closed, OSError):
            return

    def trainer(self) -> Connection:
        """The next that connects."""
        return self.connections.get(timeout=PATIENCE_S)

    def next(self, wanted: Callable[[Any], bool]) -> Any:
        """The next message that is `wanted`; those before it are passed over."""
        while not wanted(message := self.heard.get(timeout=PATIENCE_S)):
            pass
        return message

    def next_beat(self, phase: str) -> Heartbeat:
        """The next sign of life in `phase`."""
        beat: Heartbeat = self.next(lambda message: isinstance(message, Heartbeat) and message.phase == phase)
        return beat

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
