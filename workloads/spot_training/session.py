"""Session: what a training loop holds so that it can be taken away at any moment and brought back at the same step."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import queue
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from spot_training.beats import Beats
from spot_training.guard import Guard
from spot_training.protocol.arena import Arena
from spot_training.protocol.channel import Closed, Connection
from spot_training.protocol.messages import (
    Abandoned,
    Committed,
    Finish,
    Finished,
    Hello,
    Line,
    Phase,
    ProtocolError,
    Refused,
    Restored,
    Save,
    SaveReason,
    Welcome,
)
from spot_training.scratch import result_folder
from spot_training.stager import Stager
from spot_training.state import Boundary, Stateful, TrainState
from spot_training.tensors import tensors_in
from torch import nn

log = logging.getLogger("spot")

_CONNECT_TIMEOUT_S = 10.0
_AGENT_TIMEOUT_S = 300.0  # systemd starts a dead agent again within seconds; one that keeps failing, more slowly
_WELCOME_TIMEOUT_S = 1800.0
_FINAL_TIMEOUT_S = 1800.0
_RECONNECT_PAUSE_S = (0.1, 2.0)
_JITTER = random.Random()  # noqa: S311 - never the global generator: the run's losses depend on that one


class SessionError(Exception):
    """The session can't go on: the agent refused it, or it was used in the wrong order."""


def _greet(socket: Path, hello: Hello) -> Connection:
    """Say hello to the agent; one that is being restarted is waited for, some minutes. Raises SessionError."""
    end = time.monotonic() + _AGENT_TIMEOUT_S
    pause, longest = _RECONNECT_PAUSE_S
    while True:
        try:
            connection = Connection.open(socket, timeout=_CONNECT_TIMEOUT_S)
            connection.send(hello)
            return connection
        except OSError as error:
            if time.monotonic() + pause >= end:
                raise SessionError(
                    f"no agent answers at {socket} ({error}) for {_AGENT_TIMEOUT_S:.0f} s: is spot-agent running?"
                ) from error
        time.sleep(pause * _JITTER.uniform(0.5, 1.0))
        pause = min(longest, pause * 2)


class Session:
    """One trainer's side of a run.

    With an agent (`SPOT_AGENT_SOCKET` is set) its state is saved and restored; without one the same loop trains, and
    nothing is saved. Use it as in `workloads/llm/train.py`.
    """

    def __init__(self, run_id: str, connection: Connection | None, folder: Path) -> None:
        self.run_id = run_id
        self.step = 0
        self._connection = connection
        self._folder = folder
        self._attempt = 0
        self._beats = Beats(lambda beat: self._send(beat, []), lambda: self.step)
        self._welcome: Welcome | None = None
        self._arenas: list[Arena] = []
        self._state: TrainState | None = None
        self._stager: Stager | None = None
        self._guard: Guard | None = None
        self._orders: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._lines: dict[int, dict[str, Any]] = {}
        self._news = threading.Condition()  # of the next four
        self._committed_step = 0
        self._lost: dict[int, str] = {}
        self._finished = False
        self._refused = ""
        self._finish: Finish | None = None
        self._closing = False
        folder.mkdir(parents=True, exist_ok=True)
        self._metrics = (folder / "metrics.jsonl").open("a", buffering=1)

    @classmethod
    def open(cls, run_id: str | None = None) -> Session:
        """Say hello to the agent, if there is one. Do it early: the agent fetches the checkpoint meanwhile.

        `run_id` is the run that this script believes to train; the agent refuses another run's. By default it is the
        one that the agent names (`SPOT_RUN_ID`).
        """
        faulthandler.enable()  # a hang ends with SIGABRT, and that with every thread's stack in the journal
        socket = os.environ.get("SPOT_AGENT_SOCKET")
        run_id = run_id or os.environ.get("SPOT_RUN_ID", "")
        folder = Path(os.environ.get("SPOT_STATE_DIR") or Path("out") / run_id)
        if not socket:
            print(
                f"no agent (SPOT_AGENT_SOCKET is not set): training without checkpoints, metrics in {folder}",
                flush=True,
            )
            return cls(run_id, None, folder)
        if not run_id:
            raise SessionError("which run is it? The agent sets SPOT_RUN_ID, which is not there: Session.open(RUN_ID)")
        session = cls(run_id, _greet(Path(socket), Hello(run_id, os.getpid())), folder)
        session._beats.start()
        return session

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        self._orders.put(None)
        if self._connection:
            self._connection.close()
        self._beats.close()
        self._metrics.close()

    # --- the loop's side ---

    def track(self, *, model: nn.Module, optimizer: torch.optim.Optimizer | None = None, **others: Stateful) -> int:
        """Say what makes the state, and restore it. Returns the number of updates done (0: from scratch).

        `others` are anything with `state_dict()` and `load_state_dict()` whose state JSON can hold.

        Raises:
            StateError: the checkpoint does not fit.
            SessionError: the agent refused this trainer.
        """
        self._beats.enter("restoring")
        self._state = TrainState(model, optimizer, dict(others))
        if self._connection:
            self._restore(self._connection)
        boundary = self._state.note(self.step)
        self._guard = Guard(boundary)
        self._stager = Stager(self._state, self._guard, self._send, self.beat)
        if self._welcome:
            self._stager.adopt(self._arenas, self._welcome.busy, restored=self._welcome.restore)
            threading.Thread(target=self._listen, name="agent", daemon=True).start()
            threading.Thread(target=self._obey, name="stager", daemon=True).start()
        self._beats.enter("training")
        return self.step

    def steps(self, max_steps: int) -> Iterator[int]:
        """The steps that are left; each must contain one `update()`."""
        self._beats.beat(boundary=True)
        while self.step < max_steps:
            before = self.step
            yield before
            if self.step == before:
                raise SessionError(f"step {before} ended without session.update(): it would never end")

    @contextlib.contextmanager
    def update(self) -> Iterator[None]:
        """The optimizer's update, and all else that makes the next boundary. No snapshot is taken inside."""
        if self._guard is None or self._state is None:
            raise SessionError("call session.track(...) before session.update()")
        self._raise_trouble()
        state = self._state
        with self._guard.updating(lambda: state.note(self.step + 1), self._wants):
            yield
        self.step += 1
        if self._welcome and self._stager:
            if self.step == self._welcome.step + 1:  # from here on the optimizer has its state: plan the arenas
                self._orders.put(self._stager.prepare)
            if reason := self._due(self.step):
                self._orders.put(partial(self._stager.stage_wanted, reason))
        self._beats.beat(boundary=True)

    def log(self, **values: Any) -> None:
        """One metrics line for this step. Inside `update()` it is committed exactly once, whatever happens."""
        line = {"step": self.step, **values, "time": datetime.now(UTC).isoformat(timespec="milliseconds")}
        self._lines[self.step] = line
        self._metrics.write(json.dumps(line) + "\n")
        self._send(Line(self.step, line), [])

    def beat(self) -> None:
        """Tell the agent that a long stretch without an update is not a hang."""
        self._beats.beat()

    @contextlib.contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """`with session.phase("evaluating"):` where the loop does something else than training for a while.

        Each phase has a limit of its own. Call `beat()` now and then in a long evaluation.
        """
        with self._beats.during(phase):
            yield

    def finish(self, save: Callable[[Path], Any]) -> None:
        """Commit the last step, store what `save(folder)` writes as the run's result, and mark the run complete."""
        if not self._connection:
            result = self._folder / "result"
            result.mkdir(exist_ok=True)
            save(result)
            print(f"finished at step {self.step}; the result is in {result}", flush=True)
            return
        assert self._stager is not None, "call session.track(...) first"
        self._beats.enter("finishing")
        self._lost.pop(self.step, None)
        self._orders.put(self._stage_final)
        if not self._await(lambda: self._committed_step >= self.step or self.step in self._lost):
            raise SessionError(
                f"step {self.step} was not committed within {_FINAL_TIMEOUT_S:.0f} s: see the agent's log"
            )
        if self._committed_step < self.step:
            raise SessionError(f"step {self.step} could not be committed: {self._lost[self.step]}")
        folder = result_folder(self.run_id, self._folder)
        save(folder)
        self._finish = Finish(self.step, str(folder))
        self._send(self._finish, [])
        if not self._await(lambda: self._finished):
            raise SessionError(
                f"the result was not stored within {_FINAL_TIMEOUT_S:.0f} s: see the agent's log. It is kept: {folder}"
            )
        shutil.rmtree(folder, ignore_errors=True)

    # --- the agent's side ---

    def _restore(self, connection: Connection) -> None:
        end = time.monotonic() + _WELCOME_TIMEOUT_S
        while True:
            try:
                message, fds = connection.receive(timeout=max(0.1, end - time.monotonic()))
                break
            except Closed:  # the agent was restarted before it could answer: its successor knows what there is
                if time.monotonic() >= end:
                    raise
                connection = _greet(Path(os.environ["SPOT_AGENT_SOCKET"]), Hello(self.run_id, os.getpid()))
                self._connection = connection
        if isinstance(message, Refused):
            raise SessionError(f"the agent refused this trainer: {message.why}")
        if not isinstance(message, Welcome):
            raise SessionError(f"expected Welcome from the agent, got {type(message).__name__}")
        self._welcome = message
        self._attempt = message.attempt
        self._arenas = [Arena.adopt(fd) for fd in fds]
        begun = time.monotonic()
        if message.restore is not None and self._state:
            arena = self._arenas[message.restore]
            self._state.load(tensors_in(arena.view, size=arena.size), message.state)
            self.step = self._committed_step = message.step
        self._send(Restored(self.step, time.monotonic() - begun), [])

    def _listen(self) -> None:
        """Take the agent's messages; when it goes away, go on training and look for its successor."""
        while not self._closing:
            try:
                assert self._connection is not None
                message, _ = self._connection.receive()
            except (Closed, ProtocolError):
                self._reconnect()
                continue
            match message:
                case Save(reason, deadline, hold):
                    if self._stager:
                        if deadline is not None:
                            self._stager.hurry.set()
                        self._orders.put(partial(self._stager.stage, reason, deadline=deadline, hold=hold))
                case Committed(index, step):
                    self._on_committed(index, step)
                case Abandoned(index, step, why):
                    log.warning("the snapshot of step %d was given up: %s", step, why)
                    if self._stager:
                        self._stager.free(index, step, lost=True)
                    self._lost[step] = why
                case Finished():
                    self._finished = True
                case Refused(why):
                    self._refused = why
            with self._news:
                self._news.notify_all()

    def _obey(self) -> None:
        """The stager's thread: one save after the other."""
        while (order := self._orders.get()) is not None:
            order()

    def _stage_final(self) -> None:
        assert self._stager is not None
        self._stager.stage("final")
        with self._news:
            self._news.notify_all()

    def _on_committed(self, index: int, step: int) -> None:
        if self._stager:
            self._stager.free(index, step)
        for at in [at for at in list(self._lines) if at < step]:  # in place: the loop may be adding one
            self._lines.pop(at, None)
        self._committed_step = max(self._committed_step, step)

    def _await(self, condition: Callable[[], bool]) -> bool:
        """Wait for what the agent will say; False after half an hour."""
        with self._news:
            self._news.wait_for(lambda: condition() or self._trouble() is not None, _FINAL_TIMEOUT_S)
        self._raise_trouble()
        return condition()

    def _reconnect(self) -> None:
        pause, longest = _RECONNECT_PAUSE_S
        while not self._closing:
            time.sleep(pause * _JITTER.uniform(0.5, 1.0))
            pause = min(longest, pause * 2)
            with contextlib.suppress(OSError):
                connection = Connection.open(Path(os.environ["SPOT_AGENT_SOCKET"]), timeout=_CONNECT_TIMEOUT_S)
                connection.send(Hello(self.run_id, os.getpid(), attempt=self._attempt, step=self.step))
                self._connection = connection
                self._beats.beat()
                for at in sorted(self._lines):
                    self._send(Line(at, self._lines[at]), [])
                if self._stager:
                    self._stager.announce()
                if self._finish:
                    self._send(self._finish, [])
                return

    def _send(self, message: Any, fds: list[int]) -> None:
        if self._connection:
            with contextlib.suppress(Closed):  # `_listen` notices too, and tells a new agent what it must know
                self._connection.send(message, fds)

    def _due(self, step: int) -> SaveReason | None:
        if self._welcome is None:
            return None
        if self._welcome.milestone_steps and step % self._welcome.milestone_steps == 0:
            return "milestone"
        if self._welcome.every_steps and step % self._welcome.every_steps == 0:
            return "cadence"
        return None

    def _wants(self, boundary: Boundary) -> bool:
        return self._due(boundary.step) is not None

    def _trouble(self) -> Exception | None:
        if self._refused:
            return SessionError(f"the agent refused this trainer: {self._refused}")
        return self._stager.error if self._stager else None

    def _raise_trouble(self) -> None:
        if trouble := self._trouble():
            raise trouble
