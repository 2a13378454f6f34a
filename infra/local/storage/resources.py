"""What the API says about one object, and what its clients ask of it: resource, preconditions, checksums."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from typing import Any
from urllib.parse import quote

from infra.local.storage.errors import ApiError, Refused
from infra.local.storage.memory import Data

Metadata = dict[str, Any]

_WRITABLE = (
    "cacheControl",
    "contentDisposition",
    "contentEncoding",
    "contentLanguage",
    "contentType",
    "customTime",
    "eventBasedHold",
    "metadata",
    "storageClass",
    "temporaryHold",
)


def rfc3339(at: float) -> str:
    """Unix seconds as the API writes times."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: object) -> float:
    """Unix seconds of an RFC 3339 time; 400 when it is none."""
    try:
        parsed = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        raise Refused(f"Invalid value for a time: {text!r}. Use RFC 3339, e.g. 2026-01-31T12:00:00Z.") from None
    return parsed.replace(tzinfo=parsed.tzinfo or UTC).timestamp()


def encode_crc32c(value: int) -> str:
    return base64.b64encode(value.to_bytes(4, "big")).decode()


@dataclass(frozen=True)
class Checksums:
    """What a client says about the bytes it sends, base64 as on the wire."""

    crc32c: str | None = None
    md5: str | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str] | Message) -> Checksums:
        """From X-Goog-Hash and Content-MD5."""
        found: dict[str, str] = {"md5": headers.get("Content-MD5", "")}
        for item in headers.get("X-Goog-Hash", "").split(","):
            kind, _, value = item.strip().partition("=")
            if kind in ("crc32c", "md5"):
                found[kind] = value
        return cls(found.get("crc32c") or None, found["md5"] or None)

    def merged(self, other: Checksums) -> Checksums:
        return Checksums(other.crc32c or self.crc32c, other.md5 or self.md5)


@dataclass(frozen=True)
class Preconditions:
    """The ifGeneration*/ifMetageneration* parameters of one request."""

    generation_match: int | None = None
    generation_not_match: int | None = None
    metageneration_match: int | None = None
    metageneration_not_match: int | None = None

    @classmethod
    def of(cls, query: Mapping[str, str], infix: str = "") -> Preconditions:
        """From query parameters; `infix` "Source" reads ifSourceGenerationMatch and so on."""

        def number(name: str) -> int | None:
            text = query.get(f"if{infix}{name}")
            if text is None or text == "":
                return None
            if not text.lstrip("-").isdigit():
                raise Refused(f"Invalid value for if{infix}{name}: {text!r}.")
            return int(text)

        return cls(
            number("GenerationMatch"),
            number("GenerationNotMatch"),
            number("MetagenerationMatch"),
            number("MetagenerationNotMatch"),
        )

    def check(self, generation: int, metageneration: int, *, reading: bool = False) -> None:
        """Refuse with 412, or 304 where a read's not-match fails. A missing object has generation 0."""
        if self.generation_match not in (None, generation):
            raise _condition_not_met()
        if self.metageneration_match not in (None, metageneration):
            raise _condition_not_met()
        if generation == self.generation_not_match or metageneration == self.metageneration_not_match:
            raise ApiError(304, "Not Modified") if reading else _condition_not_met()


def _condition_not_met() -> ApiError:
    return ApiError(412, "At least one of the pre-conditions you specified did not hold.")


UNCLAIMED = Checksums()
UNCONDITIONAL = Preconditions()


@dataclass(frozen=True)
class Object:
    """One generation of one object."""

    bucket: str
    name: str
    generation: int
    metageneration: int
    data: Data
    size: int
    crc32c: int
    md5: str | None
    created: float
    updated: float
    metadata: Metadata = field(default_factory=dict)
    component_count: int | None = None
    deleted: float | None = None

    @property
    def etag(self) -> str:
        return base64.b64encode(f"{self.generation}/{self.metageneration}".encode()).decode()

    def resource(self, host: str) -> Metadata:
        """The API's object resource."""
        path = f"/b/{self.bucket}/o/{quote(self.name, safe='')}"
        made: Metadata = {
            "kind": "storage#object",
            "id": f"{self.bucket}/{self.name}/{self.generation}",
            "selfLink": f"{host}/storage/v1{path}",
            "mediaLink": f"{host}/download/storage/v1{path}?generation={self.generation}&alt=media",
            "name": self.name,
            "bucket": self.bucket,
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            "storageClass": "STANDARD",
            "size": str(self.size),
            "crc32c": encode_crc32c(self.crc32c),
            "etag": self.etag,
            "timeCreated": rfc3339(self.created),
            "updated": rfc3339(self.updated),
            "timeStorageClassUpdated": rfc3339(self.created),
        }
        if self.md5 is not None:
            made["md5Hash"] = self.md5
        if self.component_count is not None:
            made["componentCount"] = self.component_count
        if self.deleted is not None:
            made["timeDeleted"] = rfc3339(self.deleted)
        return made | self.metadata


def writable(metadata: Mapping[str, Any]) -> Metadata:
    """The fields of an object resource that a client may set, nulls left out."""
    kept = {key: metadata[key] for key in _WRITABLE if metadata.get(key) is not None}
    if "customTime" in kept:
        kept["customTime"] = rfc3339(parse_time(kept["customTime"]))
    if not isinstance(kept.get("metadata", {}), dict):
        raise Refused("Invalid value for metadata: it must be an object of strings.")
    if "metadata" in kept:
        kept["metadata"] = {str(k): str(v) for k, v in kept["metadata"].items() if v is not None}
    return kept
