"""The three ways a client sends an object: media, multipart and resumable."""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from email.parser import Parser
from typing import Any

from infra.local.storage.errors import ApiError, Missing, Refused
from infra.local.storage.memory import Data, Filling, Pool
from infra.local.storage.resources import Checksums, Metadata, Preconditions

# What a broken chunk leaves behind is kept in whole granules, as the service does.
GRANULE = 256 << 10
DEFAULT_TYPE = "application/octet-stream"
_HEAD_LIMIT = 1 << 20


@dataclass
class Draft:
    """An object about to be stored: what the client said of it before or beside its bytes."""

    name: str
    metadata: Metadata
    conditions: Preconditions
    checksums: Checksums


def parse_json(content: bytes) -> dict[str, Any]:
    """The JSON object of a request body, {} for none and for the `null` that rclone sends; 400 for anything else."""
    if not content.strip():
        return {}
    try:
        parsed = json.loads(content)
    except ValueError:
        raise Refused("Parse Error: the request body is not JSON.", reason="parseError") from None
    if parsed is None:
        return {}
    if not isinstance(parsed, dict):
        raise Refused("Parse Error: the request body is not a JSON object.", reason="parseError")
    return parsed


def draft(
    query: Mapping[str, str],
    metadata: Metadata,
    headers: Mapping[str, str] | Message,
    *,
    content_type: str | None,
) -> Draft:
    """Put together what query, metadata and headers say; 400 where they disagree."""
    name = query.get("name") or metadata.get("name")
    if not name:
        raise ApiError(400, "Required parameter: name", reason="required")
    if metadata.get("name") not in (None, name):
        raise Refused(f"Value {metadata['name']!r} in content does not agree with value {name!r} in the query.")
    described = dict(metadata)
    if described.get("contentType") is None:
        described["contentType"] = content_type or DEFAULT_TYPE
    if query.get("contentEncoding"):
        described["contentEncoding"] = query["contentEncoding"]
    claimed = Checksums.of(headers).merged(Checksums(metadata.get("crc32c"), metadata.get("md5Hash")))
    return Draft(str(name), described, Preconditions.of(query), claimed)


def split_multipart(body: Data, content_type: str) -> tuple[Metadata, str | None, Data]:
    """Metadata, content type and media of a multipart/related body; the media is a view, not a copy.

    Line ends may be CRLF or, as gcsfs sends them, LF alone.
    """
    parameters = Parser().parsestr(f"Content-Type: {content_type}\n\n", headersonly=True)
    boundary = parameters.get_boundary()
    if boundary and boundary.startswith("'") and boundary.endswith("'"):
        boundary = boundary[1:-1]  # as gsutil's apitools quotes it
    if not boundary:
        raise Refused("A multipart upload needs Content-Type: multipart/related; boundary=...")
    mark = b"--" + boundary.encode()
    head = bytes(body.part(0, _HEAD_LIMIT))
    begin = head.find(mark)
    newline = b"\r\n" if head[begin + len(mark) :].startswith(b"\r\n") else b"\n"
    blank = newline * 2
    split = head.find(newline + mark, begin + len(mark))
    media_at = head.find(blank, split + len(newline) + len(mark)) + len(blank)
    tail_at = max(media_at, body.size - len(mark) - 64)
    media_size = bytes(body.part(tail_at)).rfind(newline + mark + b"--")
    if begin < 0 or split < 0 or media_at < len(blank) or media_size < 0:
        raise Refused("Malformed multipart body.")
    described = head[begin + len(mark) + len(newline) : split]
    _, _, content = described.partition(blank)
    media_head = head[split + len(newline) + len(mark) + len(newline) : media_at]
    media_type = Parser().parsestr(media_head.decode("latin-1"), headersonly=True).get("Content-Type")
    return parse_json(content), media_type, body.part(media_at, tail_at + media_size)


_CONTENT_RANGE = re.compile(r"bytes (?:(\*)|(\d+)-(\d+|\*))/(\d+|\*)")


@dataclass(frozen=True)
class ContentRange:
    """A parsed Content-Range of a resumable request: `start` is None for a status query."""

    start: int | None
    end: int | None
    total: int | None

    @classmethod
    def parse(cls, header: str | None) -> ContentRange | None:
        """None without a header; 400 if it is malformed."""
        if header is None:
            return None
        match = _CONTENT_RANGE.fullmatch(header.strip())
        if match is None:
            raise Refused(f"Failed to parse Content-Range header: {header!r}.")
        star, start, end, total = match.groups()
        return cls(
            None if star else int(start),
            None if star or end == "*" else int(end) + 1,
            None if total == "*" else int(total),
        )


@dataclass
class Session:
    """One resumable upload. Its `lock` is held by the request that is sending to it."""

    bucket: str
    identity: str
    """Who began it: whoever knows the upload id goes on in that name, as with a session URI of the service."""
    draft: Draft
    filling: Filling
    lock: threading.Lock = field(default_factory=threading.Lock)
    # The finished upload's object, as the client will be told again if it asks.
    done: tuple[str, int] | None = None

    def keep_granules(self) -> None:
        """Forget the part of a broken chunk that the service would not have kept."""
        self.filling.cut(self.filling.size // GRANULE * GRANULE)

    def progress(self) -> dict[str, str]:
        """The headers of a 308 answer: how much has come."""
        return {"Range": f"bytes=0-{self.filling.size - 1}"} if self.filling.size else {}


class Sessions:
    """All resumable uploads under way or finished."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._cancelled: set[str] = set()

    def begin(self, bucket: str, identity: str, draft: Draft) -> str:
        """The upload id of a new session."""
        upload_id = secrets.token_urlsafe(48)
        with self._lock:
            self._sessions[upload_id] = Session(bucket, identity, draft, Filling(self._pool))
        return upload_id

    def get(self, upload_id: str) -> Session:
        with self._lock:
            if upload_id in self._cancelled:
                raise ApiError(499, "The upload was cancelled.")
            found = self._sessions.get(upload_id)
        if found is None:
            raise Missing(f"No such upload session: {upload_id[:8]}... Start the upload again.")
        return found

    def name_of(self, upload_id: str) -> str:
        """The name of the object being uploaded, "" if there is no such upload."""
        with self._lock:
            found = self._sessions.get(upload_id)
        return found.draft.name if found else ""

    def cancel(self, upload_id: str) -> None:
        self.get(upload_id)
        with self._lock:
            self._sessions.pop(upload_id, None)
            self._cancelled.add(upload_id)

    def finish(self, session: Session, generation: int) -> None:
        """Remember the result and let go of the bytes: the object has them now."""
        session.done = (session.draft.name, generation)
        session.filling = Filling(self._pool)

    def clear(self) -> None:
        with self._lock:
            self._sessions.clear()
            self._cancelled.clear()
