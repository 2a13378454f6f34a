"""A VM's metadata server on loopback, with the real one's semantics: header both ways, ETags, long polls, tokens.

Point programs at it with `GCE_METADATA_HOST=HOST:PORT`. Not modelled: mutual TLS, identity tokens, OS Login, rate
limits, the v1beta1 tree, and POST for certificate-bound tokens.
"""

from __future__ import annotations

import math
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from infra.local.metadata_http import ROOT, Reply, Server, hung_up
from infra.local.metadata_tree import MetadataTree, Value, render_directory, render_leaf

MintToken = Callable[[str, float], str]
"""(service account's e-mail, lifetime in seconds) -> access token."""

SCHEDULING = {"automatic-restart": "FALSE", "on-host-maintenance": "TERMINATE", "preemptible": "TRUE"}
SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
_ACCOUNTS = "instance/service-accounts/"
_GUEST = "instance/guest-attributes/"
_HANGUP_CHECK_S = 1.0  # how long a poll whose client went away keeps its thread
_NOT_FOUND = Reply(404, b"Not found\n")
_UNAVAILABLE = Reply(503, b"Service unavailable\n")


def random_token(_account: str, _lifetime: float) -> str:
    """A token that no server knows."""
    return f"ya29.local-{secrets.token_urlsafe(24)}"


class MetadataServer:
    """One VM's metadata server; `with MetadataServer(...) as server:` serves on `address` until the block ends.

    `port` 0 takes a free one. `mint` makes access tokens; one is reissued once less than `token_margin` of its
    `token_lifetime` seconds are left. `clock` (seconds) times tokens and 503 spells. Methods are thread-safe.
    """

    def __init__(
        self,
        *,
        name: str = "vm-0",
        zone: str = "us-central1-a",
        project: str = "local-project",
        instance_id: int | None = None,
        attributes: Mapping[str, str] | None = None,
        scheduling: Mapping[str, str] = SCHEDULING,
        service_account: str = "spot-training@local-project.iam.gserviceaccount.com",
        mint: MintToken = random_token,
        token_lifetime: float = 3599.0,
        token_margin: float = 300.0,
        address: str = "127.0.0.1",
        port: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts: Counter[int] = Counter()
        """Answers given so far, by status."""
        self.polls: Counter[str] = Counter()
        """Long polls hanging now, by path."""
        self._changed = threading.Condition()
        self._clock = clock
        self._down_until = -math.inf
        self._closed = False
        self._account = service_account
        self._token = _TokenSource(mint, service_account, token_lifetime, token_margin, clock)
        self._tree = MetadataTree()
        number = 10**11 + secrets.randbelow(9 * 10**11)
        leaves: dict[str, Value] = {
            "instance/id": instance_id or 10**18 + secrets.randbelow(8 * 10**18),
            "instance/name": name,
            "instance/hostname": f"{name}.{zone}.c.{project}.internal",
            "instance/zone": f"projects/{number}/zones/{zone}",
            "instance/preempted": "FALSE",
            "instance/maintenance-event": "NONE",
            "instance/attributes/enable-guest-attributes": "TRUE",
            f"{_ACCOUNTS}default/aliases": ["default"],
            f"{_ACCOUNTS}default/email": service_account,
            f"{_ACCOUNTS}default/scopes": SCOPES,
            "project/project-id": project,
            "project/numeric-project-id": number,
            "universe/universe-domain": "googleapis.com",
        }
        leaves |= {f"instance/scheduling/{key}": value for key, value in scheduling.items()}
        leaves |= {f"instance/attributes/{key}": value for key, value in (attributes or {}).items()}
        for path, value in leaves.items():
            self._tree.set(path, value)
        self._tree.set(f"{_ACCOUNTS}default/token", self._token.answer)
        self._http = Server(address, port, self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), name="metadata", daemon=True)

    @property
    def host(self) -> str:
        """`127.0.0.1:PORT`, as `GCE_METADATA_HOST` wants it."""
        return "{}:{}".format(*self._http.server_address)

    def set(self, path: str, value: Value) -> None:
        """Set e.g. `instance/preempted`; polls that wait for the path, or a directory above it, answer at once."""
        with self._changed:
            if self._tree.set(path, value):
                self._changed.notify_all()

    def delete(self, path: str) -> None:
        """Remove a value; one that is not there is fine."""
        with self._changed:
            if self._tree.delete(path):
                self._changed.notify_all()

    def get(self, path: str) -> Value | None:
        """The value of a leaf, None where there is none (or it is computed, as the token is)."""
        with self._changed:
            value = self._tree.get(path)
        return None if callable(value) else value

    def fail_for(self, seconds: float) -> None:
        """Answer 503 to everything for so long, hanging polls too; 0 ends a spell."""
        with self._changed:
            self._down_until = self._clock() + seconds
            self._changed.notify_all()

    def wait_for(self, predicate: Callable[[Self], bool], timeout: float) -> bool:
        """Wait until `predicate(server)`, of `counts`, `polls` and values, holds; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: predicate(self), timeout)

    def start(self) -> Self:
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop serving and cut all connections, hanging polls too."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join()
        self._http.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What the HTTP side asks (metadata_http.Source).

    def read(self, path: str, query: dict[str, str], connection: socket.socket) -> Reply:
        """Answer a GET, after the wait that its query asks for."""
        key = self._key(path)
        with self._changed:
            if refusal := self._refuse(key) or self._await_change(key, query, connection):
                return refusal
            leaf = self._tree.get(key)
            if leaf is None or path.endswith("/"):
                return self._read_directory(path, key, query)
            etag = self._tree.etag(key)
        # Unlocked: minting a token may ask another server, and a notice must not wait for that.
        content_type, body = render_leaf(leaf, query.get("alt"))
        return Reply(200, body, content_type, etag)

    def write(self, path: str, body: bytes | None) -> Reply:
        """PUT a guest attribute, or DELETE it where `body` is None."""
        with self._changed:
            if refusal := self._refuse(path):
                return refusal
            if not path.startswith(_GUEST) or len(path.split("/")) != 4 or not all(path.split("/")):
                return Reply(405, f"Only {_GUEST}NAMESPACE/KEY can be written.\n".encode())
            if body is None:
                self._tree.delete(path)
            else:
                self._tree.set(path, body.decode(errors="replace"))
            self._changed.notify_all()
            return Reply(200, b"")

    def count(self, reply: Reply) -> None:
        with self._changed:
            self.counts[reply.status] += 1
            self._changed.notify_all()

    def _key(self, path: str) -> str:
        key = path.strip("/")
        if key.startswith(_ACCOUNTS + self._account):  # the account goes by its e-mail too
            key = key.replace(self._account, "default", 1)
        return key

    def _refuse(self, key: str) -> Reply | None:
        if self._closed or self._clock() < self._down_until:
            return _UNAVAILABLE
        if (key + "/").startswith(_GUEST):
            flag = self._tree.get("instance/attributes/enable-guest-attributes")
            if str(flag).upper() != "TRUE":
                return Reply(403, b"Guest attributes endpoint access is disabled: set enable-guest-attributes=TRUE.\n")
        return None

    def _await_change(self, key: str, query: dict[str, str], connection: socket.socket) -> Reply | None:
        """Hang while nothing changes; None when there is something to answer (a value, the time is up)."""
        if query.get("wait_for_change", "").lower() != "true":
            return None
        limit = query.get("timeout_sec", "")
        if limit and not limit.isdigit():
            return Reply(400, f"timeout_sec={limit!r} is not a whole number of seconds.\n".encode())
        if self._tree.get(key) is None and not self._tree.is_directory(key):
            return None  # 404 at once: what is absent has no ETag to wait on
        if query.get("last_etag", self._tree.etag(key)) != self._tree.etag(key):
            return None
        version = self._tree.version(key)
        deadline = time.monotonic() + (int(limit) if limit else math.inf)
        self.polls[key] += 1
        self._changed.notify_all()
        try:
            while self._tree.version(key) == version and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(min(left, _HANGUP_CHECK_S))
                if refusal := self._refuse(key):
                    return refusal
                if hung_up(connection):
                    return Reply(408, b"")  # nobody reads it
        finally:
            self.polls[key] -= 1
            self._changed.notify_all()
        return None

    def _read_directory(self, path: str, key: str, query: dict[str, str]) -> Reply:
        if not self._tree.is_directory(key):
            return _NOT_FOUND
        if path and not path.endswith("/"):
            return Reply(301, b"", location=f"{ROOT}/{path}/")
        recursive = query.get("recursive", "").lower() == "true"
        content_type, body = render_directory(self._tree, key, recursive=recursive, alt=query.get("alt"))
        return Reply(200, body, content_type, self._tree.etag(key))


class _TokenSource:
    """The service account's token: the same one until its last `margin` seconds, then a new one."""

    def __init__(
        self, mint: MintToken, account: str, lifetime: float, margin: float, clock: Callable[[], float]
    ) -> None:
        self._mint, self._account, self._lifetime, self._margin = mint, account, lifetime, margin
        self._clock = clock
        self._lock = threading.Lock()
        self._token = ""
        self._expires = -math.inf

    def answer(self) -> dict[str, Any]:
        with self._lock:
            if self._expires - self._clock() < self._margin:
                self._token = self._mint(self._account, self._lifetime)
                self._expires = self._clock() + self._lifetime
            left = max(0, int(self._expires - self._clock()))
            return {"access_token": self._token, "expires_in": left, "token_type": "Bearer"}
