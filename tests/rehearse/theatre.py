"""A rehearsal in a second or two: the real session and the real probe, the agent and the machine played by a few lines.

What the real agent does with a snapshot is tested elsewhere; here it is kept in memory, and given to the next life.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spot_training.protocol.arena import Arena
from spot_training.protocol.channel import Closed, Connection
from spot_training.protocol.messages import (
    Arenas,
    Committed,
    Declined,
    Finish,
    Finished,
    Hello,
    Restored,
    Save,
    Staged,
    Welcome,
)

from infra.operate.rehearse.play import last_words
from infra.operate.rehearse.records import Life, Run, Strike, json_lines, plan_of, read_lives

ZYGOTE = Path(__file__).with_name("zygote.py")
PATIENCE_S = 60.0
_SAVE_S = 20.0
_EVERY = 3


class Zygote:
    """One for all tests of a session."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(ZYGOTE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def start(self, script: Path, env: dict[str, str], log: Path) -> int:
        """The pid of a new process that runs `script`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"script": str(script), "folder": str(script.parent), "env": env, "log": str(log)}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def status(self) -> int:
        """How the process that was started last ended: its exit status, negative for a signal."""
        assert self._process.stdout is not None
        return os.waitstatus_to_exitcode(int(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclass
class Kept:
    """The newest snapshot."""

    step: int = 0
    content: bytes = b""
    state: dict[str, Any] | None = None


class Agent:
    """The other end of one trainer's socket."""

    def __init__(self, path: Path, kept: Kept) -> None:
        self.kept = kept
        self.restored: int | None = None
        self.answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self._connection: Connection | None = None
        self._arenas: list[Arena] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def save(self) -> None:
        """What a notice comes to."""
        assert self._connection is not None
        self._connection.send(Save("emergency", time.monotonic() + _SAVE_S, True), [])
        with contextlib.suppress(queue.Empty):
            while not isinstance(self.answers.get(timeout=_SAVE_S), Staged | Declined):
                pass

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(PATIENCE_S)
        for arena in self._arenas:
            arena.close()

    def _serve(self) -> None:
        try:
            self._connection = connection = Connection(self._server.accept()[0])
            while True:
                message, fds = connection.receive()
                self._hear(connection, message, fds)
        except (Closed, OSError):
            return

    def _hear(self, connection: Connection, message: Any, fds: list[int]) -> None:
        kept = self.kept
        match message:
            case Hello():
                given = []
                if kept.state is not None:
                    arena = Arena.create(len(kept.content))
                    arena.view[: len(kept.content)] = kept.content
                    self._arenas = [arena]
                    given = [arena.fd]
                restore = 0 if given else None
                welcome = Welcome(
                    1, [False] * len(given), restore, kept.step, kept.state or {}, _EVERY, None, len(given)
                )
                connection.send(welcome, given)
            case Restored(step):
                self.restored = step
            case Arenas(keep):
                self._arenas = self._arenas[:keep] + [Arena.adopt(fd) for fd in fds]
            case Staged(index, step, size, state):
                kept.step, kept.content, kept.state = step, bytes(self._arenas[index].view[:size]), state
                connection.send(Committed(index, step), [])
            case Finish():
                connection.send(Finished(), [])
        if isinstance(message, Staged | Declined):
            self.answers.put(message)


@dataclass(frozen=True)
class Theatre:
    """Plays `script` in `out`, each run to step `steps`."""

    zygote: Zygote
    script: Path
    out: Path
    steps: int

    def undisturbed(self, name: str) -> Run:
        folder = self._folder(name, ())
        self._live(folder, {})
        lives = read_lives(folder)
        log = folder / "trainer.log"
        if not lives or not lives[0].boundaries:
            return Run([], [], last_words(log))
        failure = "" if lives[-1].ended or self._complete else last_words(log)
        return Run(lives[:1], json_lines(folder / "metrics.jsonl"), failure)

    def struck(self, name: str, strikes: Sequence[Strike]) -> Run:
        folder, kept = self._folder(name, strikes), Kept()
        way: list[tuple[int, int | None]] = []
        failure = ""
        for number in range(1, len(strikes) + 2):
            path = folder / f"agent-{number}.sock"
            safe = kept.step
            agent = Agent(path, kept)
            try:
                self._live(folder, {"SPOT_AGENT_SOCKET": str(path)}, agent)
            finally:
                agent.close()
            way.append((safe, agent.restored))
            lives = read_lives(folder)
            if len(lives) < number or not (lives[-1].struck or lives[-1].ended or self._complete):
                failure = f"the trainer ended by itself. Its last lines:\n{last_words(folder / 'trainer.log')}"
                break
            if not lives[-1].struck:
                break
        lives = read_lives(folder)
        for life, (safe, restored) in zip(lives, way, strict=False):
            life.committed, life.restored = safe, restored
        return Run(lives, json_lines(folder / "metrics.jsonl"), failure)

    def _folder(self, name: str, strikes: Sequence[Strike]) -> Path:
        folder = self.out / name
        folder.mkdir(parents=True)
        (folder / "plan.json").write_text(plan_of(strikes, end=self.steps))
        return folder

    def _live(self, folder: Path, env: dict[str, str], agent: Agent | None = None) -> None:
        """One life: until it ends, or is struck, or is at the run's end."""
        common = {"SPOT_REHEARSAL": str(folder), "SPOT_STATE_DIR": str(folder), "SPOT_RUN_ID": "case"}
        before = len(read_lives(folder))
        pid = self.zygote.start(self.script, common | env, folder / "trainer.log")
        ended = threading.Event()
        status: list[int] = []

        def wait() -> None:
            status.append(self.zygote.status())
            ended.set()

        threading.Thread(target=wait, daemon=True).start()
        end, noticed = time.monotonic() + PATIENCE_S, False
        while not ended.wait(0.01):
            life = self._newest(folder, before)
            if life and life.struck and life.struck.how == "notice" and not noticed:
                assert agent is not None
                noticed = True
                (folder / f"noticed-{life.number}").touch()
                agent.save()
            if (life and (life.ended or life.struck)) or time.monotonic() > end:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                ended.wait(PATIENCE_S)
        object.__setattr__(self, "_complete", status == [0])

    _complete = False

    @staticmethod
    def _newest(folder: Path, before: int) -> Life | None:
        path = folder / f"life-{before + 1}.jsonl"
        if not path.exists() or (b'"struck"' not in (text := path.read_bytes()) and b'"ended"' not in text):
            return None
        return read_lives(folder)[-1]
