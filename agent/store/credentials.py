"""The access token for Cloud Storage: fetched ahead of need, refreshed with a deadline, never shown."""

from __future__ import annotations

import http.client
import os
import random
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from agent.store.base import Forbidden, Unavailable
from agent.store.connection import Connection, Question
from agent.store.proxy import find_proxy
from agent.store.reply import Reply

RETRIED = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP answers that are worth asking again."""

_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
# The metadata server keeps handing out the same token until five minutes before its end.
_EARLY = 300.0
_LAST_MOMENT = 20.0
_ATTEMPT = 3.0


class Token:
    """A bearer token out of google-auth's default credentials.

    Against `STORAGE_EMULATOR_HOST` default credentials are looked for only where the environment names
    them (`GCE_METADATA_HOST`, `GOOGLE_APPLICATION_CREDENTIALS`); otherwise requests are anonymous, so that
    a developer's own login never travels to a test server.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._google: Any = None
        self._anonymous = "STORAGE_EMULATOR_HOST" in os.environ and not (
            os.environ.get("GCE_METADATA_HOST") or os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
        )

    def headers(self, deadline: float) -> dict[str, str]:
        """Return what to add to a request. Waits only if there is no token that is good for now."""
        if self._anonymous:
            return {}
        if self._left() < _LAST_MOMENT:
            self._refresh(deadline, if_left_below=_LAST_MOMENT)
        headers: dict[str, str] = {}
        self._google.apply(headers)
        return headers

    def renew(self, deadline: float) -> None:
        """Fetch a new token if the present one is in its last minutes."""
        if not self._anonymous and self._left() < _EARLY:
            self._refresh(deadline, if_left_below=_EARLY)

    def reject(self, refused: Mapping[str, str], deadline: float) -> None:
        """Replace the token that a server refused, unless another thread has done so already."""
        if self._anonymous:
            return
        with self._locked(deadline):
            if refused.get("authorization") == f"Bearer {self._google.token}":
                self._fetch(deadline)

    def identity(self) -> str:
        """Who the token speaks for, as far as is known."""
        if self._anonymous:
            return "an anonymous caller"
        return str(getattr(self._google, "service_account_email", None) or "these credentials")

    def _left(self) -> float:
        if self._google is None or self._google.token is None:
            return -1.0
        if self._google.expiry is None:
            return float("inf")
        return float((self._google.expiry.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds())

    def _refresh(self, deadline: float, *, if_left_below: float) -> None:
        with self._locked(deadline):
            if self._left() < if_left_below:
                self._fetch(deadline)

    def _locked(self, deadline: float) -> _TimedLock:
        return _TimedLock(self._lock, deadline)

    def _fetch(self, deadline: float) -> None:
        from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError  # noqa: PLC0415

        try:
            if self._google is None:
                self._google = _find(deadline)
            self._google.refresh(_Request(deadline, patient=True))
        except DefaultCredentialsError as error:
            raise Forbidden(
                "no Google credentials here: give the VM a service account, or run "
                "`gcloud auth application-default login`"
            ) from error
        except GoogleAuthError as error:
            # Its text may quote what a token endpoint answered: only its kind is passed on.
            raise Unavailable(
                f"no access token to be had ({type(error).__name__}): "
                "see that the VM has a service account and that its metadata server answers"
            ) from None


def _find(deadline: float) -> Any:
    # google-auth costs 20 MB: only a gs:// run with credentials loads them.
    if os.environ.get("GCE_METADATA_HOST") and not os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
        # google.auth.default() would ask 169.254.169.254 first whether this is GCE, whatever the variable says.
        from google.auth.compute_engine import Credentials  # noqa: PLC0415

        return Credentials(scopes=[_SCOPE])
    import google.auth  # noqa: PLC0415

    return google.auth.default(scopes=[_SCOPE], request=_Request(deadline, patient=False))[0]


class _TimedLock:
    def __init__(self, lock: threading.Lock, deadline: float) -> None:
        self._lock, self._deadline = lock, deadline

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=max(0.0, self._deadline - time.monotonic())):
            raise Unavailable("out of time while another thread was fetching an access token")

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class _Request:
    """google-auth's transport, ending at the deadline.

    `patient`: tries again, quickly, what is worth it. google-auth would wait 1, 2, 4, 8 s between tries, and
    a metadata server is away for under a second. Not so while looking for one that may not exist.
    """

    def __init__(self, deadline: float, *, patient: bool) -> None:
        self._deadline, self._patient = deadline, patient

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> _Response:
        from google.auth.exceptions import TransportError  # noqa: PLC0415

        content = body.encode() if isinstance(body, str) else body or b""
        parts = urlsplit(url)
        target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
        question = Question(method, target, headers or {}, [memoryview(content)] if content else [])
        while True:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise Unavailable("out of time while fetching an access token")
            limit = min(timeout or _ATTEMPT, _ATTEMPT, left)
            try:
                reply = _ask(f"{parts.scheme}://{parts.netloc}", question, limit)
                if not self._patient or reply.status not in RETRIED:
                    return _Response(reply.status, reply.headers, bytes(reply.body))
            except (OSError, http.client.HTTPException) as error:
                if not self._patient:
                    raise TransportError(error) from error
            pause = random.uniform(0.1, 0.5)  # noqa: S311 - jitter, no secret
            time.sleep(max(0.0, min(pause, self._deadline - time.monotonic())))


@dataclass(frozen=True)
class _Response:
    """An answer as google-auth reads it."""

    status: int
    headers: http.client.HTTPMessage
    data: bytes


def _ask(endpoint: str, question: Question, limit: float) -> Reply:
    """Ask once, on a connection of its own, for `limit` seconds in all."""
    encrypted = endpoint.startswith("https:")  # a metadata server is not, and never behind a proxy
    connection = Connection(
        endpoint,
        ssl.create_default_context() if encrypted else None,
        find_proxy(endpoint) if encrypted else None,
    )
    try:
        return connection.ask(question, time.monotonic() + limit, limit)
    finally:
        connection.close()
