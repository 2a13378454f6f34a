"""Lives of a trainer, beside an agent that keeps what it stages in memory: undisturbed, or struck and resumed."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from spot_training.protocol.arena import Arena
from spot_training.protocol.channel import Closed, Connection
from spot_training.protocol.messages import (
    Arenas,
    Border,
    Committed,
    Declined,
    Finish,
    Finished,
    Hello,
    Line,
    Restored,
    Save,
    StageComplete,
    Staged,
    Welcome,
)
from spot_training.tensors import tensors_in

_PATIENCE_S = 60.0
_STRUCK = "struck"
_ENDED = "ended"


@dataclass(frozen=True)
class Snapshot:
    step: int
    content: bytes
    state: dict[str, Any]

    def differences(self, other: Snapshot) -> list[str]:
        """What is not the same in the two, bit for bit."""
        mine, theirs = (tensors_in(bytearray(one.content), size=len(one.content)) for one in (self, other))
        found = [f"{name} is only in one" for name in mine.keys() ^ theirs.keys()]
        found += [
            name
            for name in mine.keys() & theirs.keys()
            if mine[name].shape != theirs[name].shape
            or mine[name].dtype != theirs[name].dtype
            or not torch.equal(_raw(mine[name]), _raw(theirs[name]))
        ]
        if not found and self.state != other.state:
            found += [
                key for key in self.state.keys() | other.state.keys() if self.state.get(key) != other.state.get(key)
            ]
        return sorted(found) + ([] if self.step == other.step else [f"step {self.step} and {other.step}"])


@dataclass
class Life:
    """What one process did."""

    lines: dict[int, dict[str, Any]] = field(default_factory=dict)
    restored: int | None = None
    saved: Snapshot | None = None  # its newest
    struck: bool = False
    status: int | None = None  # None: killed by the strike
    output: str = ""
    trouble: str = ""


class Nursery:
    """Starts trainers (nursery.py), one at a time, and is their agent. `modules`: what most of them import."""

    def __init__(self, folder: Path, *modules: str) -> None:
        self._folder = folder
        self._socket, self._say = folder / "agent.sock", folder / "say.sock"
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(self._socket))
        self._server.listen()
        self._server.settimeout(0.05)
        self._told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._told.bind(str(self._say))
        self._told.setblocking(False)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.kinds.nursery", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "ready"

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(_PATIENCE_S)
        self._server.close()
        self._told.close()

    def live(self, script: Path, *, after: Snapshot | None = None, strike: str | None = None) -> Life:
        """Run `script` to its end, or until it was struck: at a moment of a step (strike.py), or at the border behind
        a stage, "border:STAGE". "over:STAGE": another machine has the stages that follow."""
        folder = self._folder / "vm"
        if after is None:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        env = {"SPOT_AGENT_SOCKET": str(self._socket), "SPOT_RUN_ID": "kinds", "SPOT_STATE_DIR": str(folder)}
        moment, _, stage = (strike or "").partition(":")
        if strike and moment not in ("border", "over"):
            env |= {"KINDS_STRIKE": strike, "KINDS_SAY": str(self._say)}
        pid = int(self._order({"script": str(script), "folder": str(folder), "env": env}))
        life = Life(saved=after)
        try:
            if connection := self._accept(pid):
                with contextlib.closing(connection):
                    self._attend(connection, pid, life, after, border=(moment, stage))
        finally:
            if life.struck or life.trouble:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            life.status = int(self._order({"wait": pid}))
            life.output = (folder / "output.txt").read_text()
        return life

    def _attend(
        self, connection: Connection, pid: int, life: Life, after: Snapshot | None, *, border: tuple[str, str]
    ) -> None:
        heard: queue.SimpleQueue[tuple[Any, list[int]]] = queue.SimpleQueue()
        threading.Thread(target=_hear, args=(connection, heard), daemon=True).start()
        arenas: list[Arena] = []
        end = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end:
            with contextlib.suppress(BlockingIOError):
                self._told.recv(16)
                connection.send(Save("emergency", time.monotonic() + _PATIENCE_S))
            try:
                message, fds = heard.get(timeout=0.005)
            except queue.Empty:
                continue
            match message:
                case Hello():
                    arenas = [_filled(after)] if after else []
                    connection.send(_welcome(after), [arena.fd for arena in arenas])
                case Restored(step, _):
                    life.restored = step
                case Arenas(keep, _, _):
                    arenas = arenas[:keep] + [Arena.adopt(fd) for fd in fds]
                case Line(step, values):
                    life.lines[step] = {key: value for key, value in values.items() if key != "time"}
                case Staged(index, step, size, state, reason, _):
                    life.saved = Snapshot(step, bytes(arenas[index].view[:size]), state)
                    if reason == "emergency":
                        life.struck = True
                        return
                    with contextlib.suppress(Closed):
                        connection.send(Committed(index, step))
                case Declined(_, "emergency", why, staged):
                    life.struck, life.trouble = staged, "" if staged else why
                    return
                case StageComplete(step, stage) if border == ("border", stage):
                    connection.send(Save("emergency", time.monotonic() + _PATIENCE_S))
                case StageComplete(step, stage):
                    connection.send(Border(step, here=border != ("over", stage)))
                case Finish():
                    connection.send(Finished())
                case "ended":
                    return
        life.trouble = f"nothing was heard of it for {_PATIENCE_S:.0f} s"

    def _accept(self, pid: int) -> Connection | None:
        """Its connection; None where it ended before there was one."""
        end = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end:
            with contextlib.suppress(TimeoutError):
                return Connection(self._server.accept()[0])
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return None
        raise TimeoutError("the script did not open a session")

    def _order(self, order: dict[str, Any]) -> str:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


def _hear(connection: Connection, heard: queue.SimpleQueue[tuple[Any, list[int]]]) -> None:
    try:
        while True:
            heard.put(connection.receive())
    except (Closed, OSError):
        heard.put((_ENDED, []))


def _welcome(after: Snapshot | None) -> Welcome:
    restore = None if after is None else 0
    step, state = (after.step, after.state) if after else (0, {})
    return Welcome(1, [False] if after else [], restore, step, state, None, None, fds=1 if after else 0)


def _filled(snapshot: Snapshot) -> Arena:
    arena = Arena.create(len(snapshot.content))
    arena.view[:] = snapshot.content
    return arena


def _raw(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)
