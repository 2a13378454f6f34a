"""HTTP for the hot path: kept connections, memory sent and received in place, retries up to a deadline.

Measured against other clients in the README.
"""

from __future__ import annotations

import http.client
import random
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from agent.store.base import Buffer, Unavailable
from agent.store.connection import Connection, Question
from agent.store.credentials import RETRIED, Token
from agent.store.proxy import find_proxy
from agent.store.reply import Reply

_PAUSE = 0.1  # seconds before the first retry; doubles
_LONGEST_PAUSE = 2.0
_STALL = 10.0  # seconds without a byte after which a connection is given up, at most
_SHARE = 3  # ... and at most this fraction of the call's time: a hung connection leaves time for others
_IDLE_PING = 60.0  # seconds after which `warm` uses an idle connection to keep it open
_REFUSALS = 5  # tokens refused in one call: the metadata server may keep a spent one a while, a grant may spread
_LIMITED = frozenset({"rateLimitExceeded", "userRateLimitExceeded"})  # a 403 that means "slower"


class Transport:
    """Connections to one endpoint, shared by all threads. Raises StoreError where the environment names a proxy that
    can't be used."""

    def __init__(self, endpoint: str, token: Token) -> None:
        self.token = token
        self._endpoint = endpoint
        self._proxy = find_proxy(endpoint)
        self._tls = ssl.create_default_context() if endpoint.startswith("https:") else None
        self._idle: list[Connection] = []  # the last used is the first used again
        self._lock = threading.Lock()

    def request(
        self,
        method: str,
        target: str,
        *,
        deadline: float,
        doing: str,
        body: Sequence[Buffer] = (),
        headers: Mapping[str, str] | None = None,
        into: Callable[[int], memoryview] | None = None,
    ) -> Reply:
        """Ask until there is an answer that is worth having, or raise `Unavailable` at the deadline.

        A server that wants to be left alone for a while is, but for no more than a share of the time left: nothing is
        final before the deadline. `doing` says in errors what this was for; the rest is as in `Question`.
        """
        views = [memoryview(piece).cast("B") for piece in body]
        stall = max(0.01, min(_STALL, (deadline - time.monotonic()) / _SHARE))
        tries = refused = 0
        while True:
            tries += 1
            pause = min(_LONGEST_PAUSE, _PAUSE * 2 ** (tries - 1)) * random.uniform(0.5, 1.0)  # noqa: S311
            credentials = self.token.headers(deadline)
            try:
                reply = self._try(
                    Question(method, target, {**(headers or {}), **credentials}, views, into), deadline, stall
                )
                if reply.status == 401 and credentials and refused < _REFUSALS:
                    refused += 1
                    self.token.reject(credentials, deadline)
                    if refused == 1:
                        continue
                elif reply.status not in RETRIED and reply.kind() not in _LIMITED:
                    return reply
                failure = f"status {reply.status}, {reply.reason()}"
                pause = max(pause, min(reply.retry_after(), (deadline - time.monotonic()) / _SHARE))
            except (OSError, http.client.HTTPException) as error:
                failure = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            if time.monotonic() + pause >= deadline:
                raise Unavailable(f"{doing}: given up after {tries} tries; the last: {failure}")
            time.sleep(pause)

    def warm(self, connections: int, target: str, deadline: float) -> None:
        """Have `connections` open, by asking for `target` on those that are new or long unused."""
        self.token.renew(deadline)
        taken = [self._take() for _ in range(connections)]
        question = Question("GET", target, self.token.headers(deadline), [])
        try:
            for connection in taken:
                if connection.idle_for() > _IDLE_PING:
                    reply = connection.ask(question, deadline, deadline - time.monotonic())
                    if reply.status in RETRIED:
                        raise http.client.HTTPException(f"status {reply.status}, {reply.reason()}")
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"opening connections to {self._endpoint}: {error}") from error
        finally:
            for connection in reversed(taken):
                self._give_back(connection)

    def _try(self, question: Question, deadline: float, stall: float) -> Reply:
        while True:
            connection = self._take()
            fresh = connection.idle_for() == float("inf")
            try:
                return connection.ask(question, deadline, stall)
            except (ConnectionError, ssl.SSLError, http.client.BadStatusLine):
                if fresh:
                    raise
                # The server had closed it while it lay idle: that is no failure.
            finally:
                self._give_back(connection)

    def _take(self) -> Connection:
        with self._lock:
            while self._idle:
                connection = self._idle.pop()
                if connection.usable():
                    return connection
        return Connection(self._endpoint, self._tls, self._proxy)

    def _give_back(self, connection: Connection) -> None:
        if connection.idle_for() < float("inf"):
            with self._lock:
                self._idle.append(connection)
