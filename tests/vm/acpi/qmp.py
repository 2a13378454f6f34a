"""QEMU's machine protocol, as much of it as a power button needs: commands in turn, events passed over."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

_CALL_S = 30.0


class QmpError(Exception):
    """QEMU refused a command, or did not answer."""


class Qmp:
    """A connection to the socket at `path`, which QEMU makes when it starts; waits for it up to `timeout` seconds."""

    def __init__(self, path: Path, *, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_CALL_S)
        while True:
            try:
                self._socket.connect(str(path))
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise QmpError(f"QEMU has no socket {path} after {timeout:.0f} s") from error
                time.sleep(0.05)
        self._lines = self._socket.makefile("rb")
        self._answer("QMP")
        self.call("qmp_capabilities")

    def call(self, command: str) -> Any:
        """Raises QmpError."""
        try:
            self._socket.sendall(json.dumps({"execute": command}).encode() + b"\n")
            return self._answer("return")
        except OSError as error:
            raise QmpError(f"{command}: {error}") from error

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def _answer(self, key: str) -> Any:
        for line in self._lines:
            message = json.loads(line)
            if key in message:
                return message[key]
            if "error" in message:
                raise QmpError(message["error"]["desc"])
        raise QmpError("QEMU hung up")
