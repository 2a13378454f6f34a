"""Link: the trainer's connection to its agent, which may be restarted under it at any time."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spot_training.protocol.channel import Closed, Connection
from spot_training.protocol.messages import Hello, ProtocolError, Refused, Welcome

_CONNECT_TIMEOUT_S = 10.0
_AGENT_TIMEOUT_S = 300.0  # systemd starts a dead agent again within seconds; one that keeps failing, more slowly
_WELCOME_TIMEOUT_S = 1800.0
_RECONNECT_PAUSE_S = (0.1, 2.0)
_JITTER = random.Random()  # noqa: S311 - never the global generator: the run's losses depend on that one


class SessionError(Exception):
    """The session can't go on: the agent refused it, or it was used in the wrong order."""


class Link:
    """One trainer's link. Messages go out by `send`, from any thread; `listen` brings what comes in."""

    def __init__(self, socket: Path, run_id: str) -> None:
        """Say hello to the agent; one that is being restarted is waited for, some minutes. Raises SessionError."""
        self._socket = socket
        self._run_id = run_id
        self._attempt = 0
        self._closing = False
        self._connection = self._greet()

    def send(self, message: Any, fds: list[int] | None = None) -> None:
        with contextlib.suppress(Closed):  # `listen` notices too, and tells a new agent what it must know
            self._connection.send(message, fds or [])

    def welcome(self) -> tuple[Welcome, list[int]]:
        """What to start from, and the arenas' descriptors. Raises SessionError: the agent refuses this trainer."""
        end = time.monotonic() + _WELCOME_TIMEOUT_S
        while True:
            try:
                message, fds = self._connection.receive(timeout=max(0.1, end - time.monotonic()))
                break
            except Closed:  # the agent was restarted before it could answer: its successor knows what there is
                if time.monotonic() >= end:
                    raise
                self._connection = self._greet()
        if isinstance(message, Refused):
            raise SessionError(f"the agent refused this trainer: {message.why}")
        if not isinstance(message, Welcome):
            raise SessionError(f"expected Welcome from the agent, got {type(message).__name__}")
        self._attempt = message.attempt
        return message, fds

    def listen(self, take: Callable[[Any], None], *, step: Callable[[], int], again: Callable[[], None]) -> None:
        """In a thread of its own: `take` each message. When the agent goes away, look for its successor, say which
        `step` this trainer is at, and let `again` tell it the rest."""
        threading.Thread(target=self._listen, args=(take, step, again), name="agent", daemon=True).start()

    def close(self) -> None:
        self._closing = True
        self._connection.close()

    def _greet(self) -> Connection:
        end = time.monotonic() + _AGENT_TIMEOUT_S
        pause, longest = _RECONNECT_PAUSE_S
        while True:
            try:
                return self._hello(step=0)
            except OSError as error:
                if time.monotonic() + pause >= end:
                    raise SessionError(
                        f"no agent answers at {self._socket} for {_AGENT_TIMEOUT_S:.0f} s ({error}): is spot-agent up?"
                    ) from error
            time.sleep(pause * _JITTER.uniform(0.5, 1.0))
            pause = min(longest, pause * 2)

    def _hello(self, *, step: int) -> Connection:
        connection = Connection.open(self._socket, timeout=_CONNECT_TIMEOUT_S)
        connection.send(Hello(self._run_id, os.getpid(), attempt=self._attempt, step=step))
        return connection

    def _listen(self, take: Callable[[Any], None], step: Callable[[], int], again: Callable[[], None]) -> None:
        while not self._closing:
            try:
                message, _ = self._connection.receive()
            except (Closed, ProtocolError):
                self._reconnect(step, again)
                continue
            self._closing = self._closing or isinstance(message, Refused)  # to ask again would change nothing
            take(message)

    def _reconnect(self, step: Callable[[], int], again: Callable[[], None]) -> None:
        pause, longest = _RECONNECT_PAUSE_S
        while not self._closing:
            time.sleep(pause * _JITTER.uniform(0.5, 1.0))
            pause = min(longest, pause * 2)
            with contextlib.suppress(OSError):
                self._connection = self._hello(step=step())
                again()
                return
