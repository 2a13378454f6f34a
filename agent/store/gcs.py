"""gs:// - objects in Cloud Storage.

All of it speaks the JSON API over `Transport`: the hot path (`create`, `replace`, `read`, `read_into`) here, what is
rare in `control`. An upload carries its CRC32C, and the server makes no object
of bytes that do not match it: so under a create-only name there is our content, whole, or nothing of ours,
and a try again can't meet a broken object of its own making.
"""

from __future__ import annotations

import builtins
import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import quote

from crc32c import crc32c

from agent.store.answers import FIELDS, Answers, decode, encode
from agent.store.base import (
    AlreadyExists,
    Buffer,
    Corrupt,
    Forbidden,
    StoredObject,
    StoreError,
    Unavailable,
    check_name,
)
from agent.store.control import Control
from agent.store.credentials import Token
from agent.store.reply import Reply
from agent.store.transport import Transport

_DAMAGED_TRIES = 3
_FIELDS = f"fields={FIELDS}"


class GcsStore:
    """A `Store` in a bucket. `STORAGE_EMULATOR_HOST` in the environment sends it to another server."""

    def __init__(self, url: str) -> None:
        bucket, _, prefix = url.removeprefix("gs://").strip("/").partition("/")
        if not bucket:
            raise StoreError(f"no bucket in {url!r}: use gs://BUCKET/PREFIX")
        self.url = f"gs://{bucket}/{prefix}".rstrip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._bucket = bucket
        endpoint = os.environ.get("STORAGE_EMULATOR_HOST") or "https://storage.googleapis.com"
        endpoint = endpoint if "://" in endpoint else f"http://{endpoint}"
        token = Token()
        self._transport = Transport(endpoint, token)
        self._answers = Answers(bucket, self._prefix, token)
        self._control = Control(self._transport, self._answers)

    def create(self, name: str, data: Buffer, *, timeout: float) -> StoredObject:
        deadline = time.monotonic() + timeout
        view = memoryview(data).cast("B")
        crc = crc32c(view)
        for _ in range(_DAMAGED_TRIES):
            reply = self._upload(name, view, crc, deadline, create_only=True)
            if reply.status == 200:
                return self._verified(name, len(view), crc, self._answers.stored(reply.document()), deadline)
            if reply.status not in (403, 412):
                raise self._answers.failure(reply, name, "storage.objects.create")
            refusal = self._answers.failure(reply, name, "storage.objects.create")
            try:
                # An identity that may not overwrite can get a 403 for a name that is taken.
                there = self._stat(name, deadline)
            except Forbidden:
                raise refusal from None
            if there is None and reply.status == 403:
                raise refusal
            if there is None:
                continue  # deleted between the two questions
            if (there.size, there.crc32c) == (len(view), crc):
                return there
            raise AlreadyExists(
                f"{self.url}/{name} exists with other content ({there.size} bytes, crc32c {there.crc32c:08x}; "
                f"ours: {len(view)} bytes, crc32c {crc:08x}). Objects are never overwritten: choose another name"
            )
        raise Unavailable(f"creating {self.url}/{name}: it appears and vanishes. Does another program write here?")

    def replace(self, name: str, data: Buffer, *, timeout: float) -> StoredObject:
        deadline = time.monotonic() + timeout
        view = memoryview(data).cast("B")
        crc = crc32c(view)
        reply = self._upload(name, view, crc, deadline, create_only=False)
        if reply.status != 200:
            raise self._answers.failure(reply, name, "storage.objects.create (and .delete where it exists)")
        return self._verified(name, len(view), crc, self._answers.stored(reply.document()), deadline)

    def read(self, name: str, *, timeout: float) -> bytes:
        body, _ = self._download(name, None, time.monotonic() + timeout)
        return bytes(body)

    def read_range(self, name: str, start: int, size: int, *, timeout: float) -> bytes:
        if not size:
            return b""
        deadline = time.monotonic() + timeout
        reply = self._transport.request(
            "GET",
            f"{self._answers.path(name)}?alt=media",
            deadline=deadline,
            doing=f"downloading a part of {self.url}/{name}",
            headers={"Accept-Encoding": "gzip", "Range": f"bytes={start}-{start + size - 1}"},
        )
        if reply.status == 403 and self._is_absent(name, deadline):
            raise self._answers.missing(name)
        if reply.status not in (206, 416):
            raise self._answers.failure(reply, name, "storage.objects.get")
        if reply.status == 416 or len(reply.body) != size:
            raise Corrupt(f"{self.url}/{name} has no {size} bytes from {start} on: it is not what it was")
        return bytes(reply.body)

    def read_into(self, name: str, into: memoryview, *, timeout: float) -> int:
        view = into.cast("B")

        def place(size: int) -> memoryview:
            if size != len(view):
                raise Corrupt(
                    f"{self.url}/{name} has {size} bytes where {len(view)} were expected: "
                    "it is not the object its manifest speaks of"
                )
            return view

        return self._download(name, place, time.monotonic() + timeout)[1]

    def folders(self, prefix: str = "", *, timeout: float) -> builtins.list[str]:
        return self._control.folders(prefix, time.monotonic() + timeout)

    def list(self, prefix: str = "", *, timeout: float, limit: int | None = None) -> builtins.list[StoredObject]:
        return self._control.list(prefix, time.monotonic() + timeout, limit)

    def copy(self, source: str, target: str, *, timeout: float) -> StoredObject:
        return self._control.copy(check_name(source), check_name(target), time.monotonic() + timeout)

    def compose(self, name: str, sources: Sequence[str], *, size: int, crc32c: int, timeout: float) -> StoredObject:
        return self._control.compose(check_name(name), sources, (size, crc32c), time.monotonic() + timeout)

    def delete(self, name: str, *, timeout: float) -> None:
        self._control.delete(check_name(name), time.monotonic() + timeout)

    def delete_many(self, names: Iterable[str], *, timeout: float) -> dict[str, StoreError]:
        return self._control.delete_many(names, time.monotonic() + timeout)

    def check(self, *, timeout: float) -> None:
        self._control.check(time.monotonic() + timeout)

    def warm(self, connections: int, *, timeout: float) -> None:
        # Whether the object exists does not matter: any answer means that the way is open.
        self._transport.warm(connections, self._answers.path(".warm") + f"?{_FIELDS}", time.monotonic() + timeout)

    def _upload(self, name: str, data: memoryview, crc: int, deadline: float, *, create_only: bool) -> Reply:
        full_name = quote(self._prefix + check_name(name), safe="")
        boundary = uuid.uuid4().hex
        head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
            f"{json.dumps({'crc32c': encode(crc)})}\r\n"
            f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
        )
        condition = "&ifGenerationMatch=0" if create_only else ""
        for tries_left in reversed(range(_DAMAGED_TRIES)):
            reply = self._transport.request(
                "POST",
                f"/upload/storage/v1/b/{self._bucket}/o?uploadType=multipart&name={full_name}&{_FIELDS}{condition}",
                deadline=deadline,
                doing=f"uploading {self.url}/{name}",
                body=(head.encode(), data, f"\r\n--{boundary}--\r\n".encode()),
                headers={"Content-Type": f"multipart/related; boundary={boundary}"},
            )
            damaged = reply.status == 400 and "crc32c" in reply.reason().lower()
            if not damaged:
                return reply
            if not tries_left:
                break
        raise Corrupt(
            f"{self.url}/{name} arrived damaged {_DAMAGED_TRIES} times and was not stored: {reply.reason()} "
            "Was its memory written to during the upload? If not, suspect this machine's memory"
        )

    def _verified(self, name: str, size: int, crc: int, answer: StoredObject, deadline: float) -> StoredObject:
        if (answer.size, answer.crc32c) == (size, crc):
            return answer
        # The server had the checksum and accepted. Ask what it really keeps before calling it broken.
        there = self._stat(name, deadline)
        if there is not None and (there.size, there.crc32c) == (size, crc):
            return there
        raise Corrupt(
            f"{self.url}/{name} was stored with other content than sent ({answer.size} bytes, crc32c "
            f"{answer.crc32c:08x}; sent: {size} bytes, crc32c {crc:08x}). Its name is spent: choose another one"
        )

    def _stat(self, name: str, deadline: float) -> StoredObject | None:
        reply = self._transport.request(
            "GET", f"{self._answers.path(name)}?{_FIELDS}", deadline=deadline, doing=f"looking at {self.url}/{name}"
        )
        if reply.status == 404 or (reply.status == 403 and self._is_absent(name, deadline)):
            return None
        if reply.status != 200:
            raise self._answers.failure(reply, name, "storage.objects.get")
        return self._answers.stored(reply.document())

    def _is_absent(self, name: str, deadline: float) -> bool:
        """Whether a 403 only meant that there is no such object: so Cloud Storage answers who may not list the bucket,
        and a VM may list below its run's prefix only. There it can ask."""
        try:
            return self._control.find(name, deadline) is None
        except Forbidden:
            return False

    def _download(self, name: str, into: Callable[[int], memoryview] | None, deadline: float) -> tuple[memoryview, int]:
        for _ in range(_DAMAGED_TRIES):  # it may be the way, not the object, that damages
            reply = self._transport.request(
                "GET",
                f"{self._answers.path(name)}?alt=media",
                deadline=deadline,
                doing=f"downloading {self.url}/{name}",
                headers={"Accept-Encoding": "gzip"},  # else what is stored compressed would come decompressed
                into=into,
            )
            if reply.status == 403 and self._is_absent(name, deadline):
                raise self._answers.missing(name)
            if reply.status != 200:
                raise self._answers.failure(reply, name, "storage.objects.get")
            crc, announced = int(crc32c(reply.body)), _announced(reply)
            if crc == announced:
                return reply.body, crc
        raise Corrupt(
            f"{self.url}/{name} is damaged: crc32c {crc:08x} came, the server announced "
            f"{'none' if announced is None else f'{announced:08x}'} ({_DAMAGED_TRIES} times). Use an older checkpoint"
        )


def _announced(reply: Reply) -> int | None:
    """The CRC32C that the server says belongs to the whole object."""
    for header in reply.headers.get_all("x-goog-hash") or ():
        for item in header.split(","):
            kind, _, value = item.strip().partition("=")
            if kind == "crc32c":
                return decode(value)
    return None
