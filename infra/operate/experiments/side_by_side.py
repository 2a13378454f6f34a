"""Experiments side by side: each is a `spot run` of its own, as many at once as there is room for.

None waits for one that fails, and each survives its preemptions by itself. Being asked to stop goes on to all of them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.store import StoreError
from infra.local.asked_to_stop import AskedToStop
from infra.local.run import NOT_SAVED
from infra.operate.board import Board
from infra.operate.child import Child
from infra.operate.experiments.grid import Experiment
from infra.operate.status.standing import Reader, Standing

_LOOK_S = 0.2
_READ_EVERY_S = 2.0
_MORE_S = 60.0  # than a run's own window: after that it is killed, and what its bucket has counts


@dataclass
class SideBySide:
    """`start`: begins one. `statuses`: by name, how each that was started has ended: docs/commands.md."""

    experiments: Sequence[Experiment]
    at_once: int
    start: Callable[[Experiment], Child]
    board: Board
    asked: AskedToStop
    statuses: dict[str, int] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    """The last ones of each that has failed."""
    _running: dict[str, Child] = field(default_factory=dict)
    _readers: dict[str, Reader] = field(default_factory=dict)

    def run(self) -> None:
        """To the end of all, or until somebody asks to stop and all are saved."""
        waiting = deque(self.experiments)
        last_look, told_at = float("-inf"), None
        try:
            while self._running or (waiting and not self.asked):
                while waiting and len(self._running) < self.at_once and not self.asked:
                    self._begin(waiting.popleft())
                if self.asked and told_at is None:
                    told_at = time.monotonic()
                    self.board.say("stopping: each saves what there is")
                    for child in self._running.values():
                        child.ask()
                self._collect()
                if told_at is not None:
                    self._kill_late(time.monotonic() - told_at)
                if time.monotonic() >= last_look + _READ_EVERY_S:
                    last_look = time.monotonic()
                    self._look()
                time.sleep(_LOOK_S)
        finally:  # what nobody expected: a screen that is gone, say
            for child in self._running.values():
                child.ask()
            for name, child in self._running.items():
                child.end(within=self._window(name) + _MORE_S)

    def _begin(self, experiment: Experiment) -> None:
        experiment.write()
        self._running[experiment.name] = self.start(experiment)
        self.board.note(experiment.name, "running")

    def _collect(self) -> None:
        """Those that have ended."""
        for name, child in list(self._running.items()):
            if (status := child.status) is None:
                continue
            del self._running[name]
            child.close()
            self.statuses[name] = status
            if status == 0:
                self.board.note(name, "complete", self._standing(name))
            elif self.asked and status == self.asked_status:
                self.board.note(name, "stopped", self._standing(name))
            else:
                self.words[name] = child.last_words() or f"exit status {status}"
                state = "not saved" if status == NOT_SAVED else "failed"
                self.board.note(name, state, self._standing(name))
                self.board.say(f"{name}: {self.words[name]} ({child.log})")

    @property
    def asked_status(self) -> int:
        """Of a child that was asked to stop, and has saved: it is asked as by Ctrl-C."""
        return 130

    def _kill_late(self, waited: float) -> None:
        for name, child in self._running.items():
            if waited > self._window(name) + _MORE_S:
                child.process.kill()

    def _window(self, name: str) -> float:
        return next(each.run.machine.shutdown_window for each in self.experiments if each.name == name)

    def _look(self) -> None:
        for name in self._running:
            self.board.note(name, "running", self._standing(name))

    def _standing(self, name: str) -> Standing | None:
        experiment = next(each for each in self.experiments if each.name == name)
        try:
            if name not in self._readers:
                self._readers[name] = Reader(experiment.store(cloud=False), name)
            return self._readers[name].standing()
        except StoreError:  # what is being written just now is whole the next time
            return None
