"""A session trainer without torch: it speaks the wire as the library does, and starts in a tenth of a second.

`python -m tests.promises.light`. Its state is a chain of digests, so that what it must hold at any step is known to
whoever counts. LIGHT_TRUTH is the file in which it says what it did, for the observer; a step takes LIGHT_STEP_S; it
imports for LIGHT_IMPORT_S; LIGHT_END is the file that says, once it is there, at which step training is over;
LIGHT_FLOOD the file that makes it print without end.
"""

from __future__ import annotations

import contextlib
import os
import queue
import tempfile
import threading
import time
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

from spot_training.protocol.arena import Arena
from spot_training.protocol.channel import Closed, Connection
from spot_training.protocol.messages import (
    Abandoned,
    Arenas,
    Committed,
    Declined,
    Finish,
    Finished,
    Heartbeat,
    Hello,
    Line,
    Refused,
    Restored,
    Save,
    SaveReason,
    Staged,
    Staging,
    Welcome,
)

SIZE = 200_000
_PAUSE_S = 0.05


def digest_after(digest: bytes, step: int) -> bytes:
    """The state after update number `step`."""
    return blake2b(digest + step.to_bytes(8, "big"), digest_size=32).digest()


def expected(step: int) -> bytes:
    """The state after `step` updates."""
    digest = bytes(32)
    for at in range(step):
        digest = digest_after(digest, at)
    return digest


def expand(digest: bytes) -> bytes:
    """What lies in an arena."""
    return (digest * (SIZE // len(digest) + 1))[:SIZE]


class Truth:
    """Says what was done, for an observer: each line in one write, so that it is there whoever is killed next."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)

    def tell(self, what: str, step: int, detail: str = "") -> None:
        line = f"{time.time():.6f} {os.environ.get('SPOT_LOCAL_VM', '-')} {os.getpid()} {what} {step} {detail or '-'}\n"
        os.write(self._fd, line.encode())


class Light:
    def __init__(self) -> None:
        self.socket = Path(os.environ["SPOT_AGENT_SOCKET"])
        self.run_id = os.environ["SPOT_RUN_ID"]
        self.truth = Truth(os.environ["LIGHT_TRUTH"])
        self.truth.tell("started", 0)
        self.step, self.digest, self.attempt = 0, bytes(32), 0
        self.lines: dict[int, dict[str, Any]] = {}
        self.arenas: list[Arena] = []
        self.busy: list[Staged | None] = []
        self.holds: list[int] = []  # the step that each arena holds
        self.staged_step = self.committed_step = 0
        self.finish: Finish | None = None
        self.finished = self.held = False
        self.refused = ""
        self.updating = threading.RLock()  # held over an update and while a snapshot is copied
        self.news = threading.Condition(self.updating)
        self.orders: queue.SimpleQueue[Save] = queue.SimpleQueue()
        self.connection = Connection.open(self.socket, timeout=10.0)

    def send(self, message: Any, fds: list[int] | None = None) -> None:
        with contextlib.suppress(Closed):
            self.connection.send(message, fds or [])

    def restore(self) -> Welcome:
        self.send(Hello(self.run_id, os.getpid()))
        message, fds = self.connection.receive(timeout=60.0)
        if not isinstance(message, Welcome):
            raise SystemExit(f"the agent said {message}")
        self.attempt = message.attempt
        for fd in fds:
            Arena.adopt(fd).close() if message.restore != fds.index(fd) else self.arenas.append(Arena.adopt(fd))
        if message.restore is not None:
            arena = self.arenas.pop()
            content = bytes(arena.view[:SIZE])
            self.step, self.digest = message.step, content[:32]
            whole = content == expand(self.digest) and message.state == {"step": self.step}
            self.truth.tell("restored", self.step, self.digest.hex() if whole else "torn")
            arena.close()
        else:
            self.truth.tell("restored", 0, self.digest.hex())
        self.staged_step = self.committed_step = self.step
        self.send(Restored(self.step, 0.0))
        self.arenas = [Arena.create(SIZE), Arena.create(SIZE)]
        self.busy, self.holds = [None, None], [-1, -1]
        self.send(Arenas(0, [None, None], 2), [arena.fd for arena in self.arenas])
        return message

    def stage(self, reason: SaveReason, *, hold: bool = False, deadline: float | None = None) -> None:
        end = deadline or time.monotonic() + 60.0
        with self.news:
            if reason != "cadence":
                self.news.wait_for(lambda: self.step <= self.staged_step or None in self.busy, end - time.monotonic())
            if self.step <= self.staged_step:
                self.send(Declined(self.step, reason, "staged already", staged=True))
            elif None not in self.busy or (reason == "cadence" and self.busy != [None, None]):
                self.send(Declined(self.step, reason, "no arena is free"))
            else:
                free = [index for index in range(2) if self.busy[index] is None]
                index = min(free, key=lambda at: self.holds[at])
                self.send(Staging(index, self.step, 0))
                self.arenas[index].view[:SIZE] = expand(self.digest)
                self.holds[index] = self.staged_step = self.step
                self.busy[index] = staged = Staged(index, self.step, SIZE, {"step": self.step}, reason, 0.001)
                self.send(staged)
                self.truth.tell("staged", self.step, reason)
            self.held = self.held or hold  # it is the last save of this trainer: no further update begins

    def obey(self) -> None:
        while True:
            order = self.orders.get()
            self.stage(order.reason, hold=order.hold, deadline=order.deadline)

    def listen(self) -> None:
        while True:
            try:
                message, _ = self.connection.receive()
            except Closed:
                self.reconnect()
                continue
            with self.news:
                match message:
                    case Save():
                        self.orders.put(message)
                    case Committed(index, step) | Abandoned(index, step):
                        if self.holds[index] == step:
                            self.busy[index] = None
                        if isinstance(message, Committed):
                            self.committed_step = max(self.committed_step, step)
                            self.lines = {at: line for at, line in self.lines.items() if at >= step}
                        elif self.staged_step == step:
                            self.staged_step -= 1
                    case Finished():
                        self.finished = True
                    case Refused(why):
                        self.refused = why
                self.news.notify_all()

    def reconnect(self) -> None:
        while True:
            time.sleep(_PAUSE_S)
            with contextlib.suppress(OSError), self.updating:
                self.connection = Connection.open(self.socket, timeout=1.0)
                self.connection.send(Hello(self.run_id, os.getpid(), attempt=self.attempt, step=self.step))
                for at in sorted(self.lines):
                    self.send(Line(at, self.lines[at]))
                staged = [asdict(one) if one else None for one in self.busy]
                self.send(Arenas(0, staged, 2), [arena.fd for arena in self.arenas])
                if self.finish:
                    self.send(self.finish)
                return

    def end(self) -> float:
        path = Path(os.environ["LIGHT_END"])
        with contextlib.suppress(OSError, ValueError):
            return int(path.read_text())
        return float("inf")

    def train(self, welcome: Welcome) -> None:
        step_s = float(os.environ.get("LIGHT_STEP_S", "0.03"))
        self.send(Heartbeat(self.step, boundary=True))
        while self.step < self.end():
            time.sleep(step_s)
            if os.path.exists(os.environ["LIGHT_FLOOD"]):  # noqa: PTH110 - once a step
                os.write(1, b"".join(b"%d of a flood\r" % at for at in range(20_000)))
            with self.news:
                while self.held:
                    self.news.wait(1.0)
                if self.refused:
                    raise SystemExit(f"the agent refused this trainer: {self.refused}")
                self.truth.tell("begins", self.step)
                self.digest = digest_after(self.digest, self.step)
                self.lines[self.step] = {"step": self.step, "loss": self.digest[0], "lr": self.digest[1]}
                self.send(Line(self.step, self.lines[self.step]))
                self.step += 1
                self.send(Heartbeat(self.step, boundary=True))
                self.truth.tell("trained", self.step)
                if welcome.every_steps and self.step % welcome.every_steps == 0:
                    self.stage("cadence")

    def conclude(self) -> None:
        self.send(Heartbeat(self.step, phase="finishing"))
        while self.committed_step < self.step:
            self.stage("final")
            with self.news:
                self.news.wait(1.0)
        with tempfile.TemporaryDirectory(prefix="result-") as folder:
            Path(folder, "final.bin").write_bytes(self.digest)
            with self.news:
                self.finish = Finish(self.step, folder)
                self.send(self.finish)
                self.news.wait_for(lambda: self.finished or self.refused, 60.0)
        self.truth.tell("finished", self.step, self.digest.hex())


def main() -> None:
    time.sleep(float(os.environ.get("LIGHT_IMPORT_S", "0")))
    light = Light()
    welcome = light.restore()
    for work in (light.listen, light.obey):
        threading.Thread(target=work, daemon=True).start()
    light.train(welcome)
    light.conclude()


if __name__ == "__main__":
    main()
