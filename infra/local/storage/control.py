"""Start the local storage server and set what it does: `running_storage` and `StorageControl`."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx2

from infra.local.storage.faults import Fault, FaultKind, Outage, OutageMode
from infra.local.storage.iam import Rule
from infra.local.storage.seen import Seen
from infra.local.storage.throttle import Throttle

_CALL_S = 10.0
_STOP_S = 10.0
READY = "ready "


class ControlError(RuntimeError):
    """The server refused a control request, or can't be reached."""


class StorageControl:
    """Sets buckets, tokens, IAM, throttles and faults of a running server. Thread-safe."""

    def __init__(self, url: str) -> None:
        """`url` is the server's, e.g. http://127.0.0.1:4443."""
        self.url = url.rstrip("/")
        # Loopback only: a proxy from the environment must not get in between.
        self._http = httpx2.Client(base_url=self.url, timeout=_CALL_S, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def create_bucket(self, name: str, *, versioning: bool = False, retention_s: int = 0) -> None:
        extra: dict[str, Any] = {"versioning": {"enabled": True}} if versioning else {}
        if retention_s:
            extra["retentionPolicy"] = {"retentionPeriod": str(retention_s)}
        self._call("POST", "buckets", {"name": name, **extra})

    def throttle(
        self,
        *,
        stream_bytes_per_s: float | None = None,
        total_bytes_per_s: float | None = None,
        first_byte_s: float = 0.0,
    ) -> None:
        """Replace all limits; what is left out is unlimited."""
        limits = Throttle(
            stream_bytes_per_s=stream_bytes_per_s,
            total_bytes_per_s=total_bytes_per_s,
            first_byte_s=first_byte_s,
        )
        self._call("PUT", "throttle", limits.model_dump())

    def fault(
        self,
        kind: FaultKind,
        *,
        method: str = ".*",
        action: str = ".*",
        name: str = "",
        count: int | None = 1,
        probability: float = 1.0,
        status: int = 503,
        seconds: float = 1.0,
        after_bytes: int = 0,
        after_done: bool = False,
    ) -> None:
        """Add a rule; see `infra.local.storage.faults.Fault` for what the fields mean."""
        rule = Fault(
            kind=kind,
            method=method,
            action=action,
            name=name,
            count=count,
            probability=probability,
            status=status,
            seconds=seconds,
            after_bytes=after_bytes,
            after_done=after_done,
        )
        self._call("POST", "faults", rule.model_dump())

    def pending_faults(self) -> list[Fault]:
        """The rules that can still strike."""
        return [Fault(**item) for item in self._call("GET", "faults")]

    def outage(self, mode: OutageMode = "reset", *, seconds: float | None = None) -> None:
        """Refuse everything from now on, for `seconds` or until `end_outage`."""
        self._call("PUT", "outage", Outage(mode=mode, seconds=seconds).model_dump())

    def end_outage(self) -> None:
        self._call("DELETE", "outage")

    def iam(self, rules: list[Rule]) -> None:
        """Replace all rules; with an empty list everybody may do everything."""
        self._call("PUT", "iam", [rule.model_dump(mode="json") for rule in rules])

    def token(self, token: str, identity: str, *, lifetime_s: float | None = None) -> None:
        """Accept a bearer token as `identity` for `lifetime_s` seconds. From the first one on, others get 401."""
        self._call("POST", "tokens", {"token": token, "identity": identity, "lifetime_s": lifetime_s})

    def corrupt(self, bucket: str, name: str, *, offset: int = 0, fresh_checksum: bool = False) -> None:
        """Flip a stored byte; the object's checksums stay as they were unless `fresh_checksum`."""
        document = {"bucket": bucket, "name": name, "offset": offset, "fresh_checksum": fresh_checksum}
        self._call("POST", "corrupt", document)

    def truncate(self, bucket: str, name: str, size: int) -> None:
        """Keep only the first `size` bytes of an object; its size and checksums follow."""
        self._call("POST", "truncate", {"bucket": bucket, "name": name, "size": size})

    def hold(self, bucket: str, name: str, *, held: bool = True) -> None:
        """Put a temporary hold on an object, or take it off."""
        answer = self._http.patch(f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}", json={"temporaryHold": held})
        if answer.is_error:
            raise ControlError(f"hold {bucket}/{name}: {answer.status_code} {answer.text}")

    def requests(self, *, since: int = 0) -> list[Seen]:
        """Requests that ended, oldest first; `since` leaves out those numbered up to it."""
        return [Seen(**item) for item in self._call("GET", f"requests?since={since}")]

    def forget_requests(self) -> None:
        self._call("DELETE", "requests")

    def clear(self) -> None:
        """End all faults, outages and throttles."""
        self._call("POST", "clear")

    def reset(self) -> None:
        """As new: `clear`, and without buckets, tokens, rules and requests seen."""
        self._call("POST", "reset")

    def _call(self, method: str, path: str, document: object = None) -> Any:
        try:
            answer = self._http.request(method, f"/_local/{path}", json=document)
        except httpx2.HTTPError as error:
            raise ControlError(f"No answer from the local storage server at {self.url}: {error!r}") from error
        if answer.is_error:
            raise ControlError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json() if answer.content else None


@contextlib.contextmanager
def running_storage(
    *,
    address: str = "127.0.0.1",
    port: int = 0,
    preallocate: int = 0,
    folder: Path | None = None,
    start_timeout: float = 20.0,
) -> Iterator[StorageControl]:
    """A server in a process of its own, ready; stopped at the end. It ends with this process whatever happens.

    `folder`: where its buckets are kept from one start to the next.

    `preallocate` bytes of object memory are touched before it is ready (seconds per gigabyte).
    """
    command = [sys.executable, "-P", "-m", "infra.local.storage", "--address", address, "--port", str(port)]
    command += ["--preallocate", str(preallocate), "--parent-pid", str(os.getpid())]
    command += ["--folder", str(folder)] if folder else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    try:
        url = _ready_url(process, time.monotonic() + start_timeout)
        with StorageControl(url) as control:
            yield control
    finally:
        _stop(process)


def _ready_url(process: subprocess.Popen[bytes], deadline: float) -> str:
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if not select.select([process.stdout], [], [], max(0.0, left))[0]:
            raise ControlError("The local storage server did not become ready in time.")
        got = os.read(process.stdout.fileno(), 4096)
        if not got:
            raise ControlError(
                f"The local storage server ended with exit status {process.wait(_STOP_S)} before it was ready; "
                "its own output above says why."
            )
        line += got
    return line.decode().removeprefix(READY).strip()


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_STOP_S)
    assert process.stdout is not None
    process.stdout.close()
