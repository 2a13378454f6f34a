"""Buckets of objects with generations, preconditions and listings. Pure logic: no HTTP, no identities.

Objects are in memory, or, where the storage has a folder, on the disk too (`infra.local.storage.disk`)."""

from __future__ import annotations

import base64
import bisect
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from infra.local.storage.disk import Disk
from infra.local.storage.errors import ApiError, Held, Missing, Refused
from infra.local.storage.memory import Data
from infra.local.storage.resources import (
    UNCLAIMED,
    UNCONDITIONAL,
    Checksums,
    Metadata,
    Object,
    Preconditions,
    encode_crc32c,
    parse_time,
    rfc3339,
    writable,
)

# Above this an object has no md5Hash unless its client sent one, just as composite objects have none: MD5 runs at
# 0.6 GB/s and would be the bottleneck of every upload.
MD5_LIMIT_BYTES = 4 << 20
PAGE_LIMIT = 1000
PROJECT_NUMBER = "1"  # of the one project there is

# Where an entry stands in a listing: its name and generation; a common prefix comes after the object of its own name.
Key = tuple[str, int]
_GROUP = 2**63
_LAST = "\U0010ffff"


def _allowed() -> None:
    """The default answer to "may this write replace an object?": yes."""


@dataclass(frozen=True)
class Listing:
    """One page: objects and common prefixes in name order, and where the next page starts."""

    items: list[Object]
    prefixes: list[str]
    next_token: str | None


@dataclass(frozen=True)
class ListQuery:
    """What to list; the fields are the API's parameters."""

    prefix: str = ""
    delimiter: str = ""
    start: str = ""
    end: str = ""
    limit: int = PAGE_LIMIT
    token: str = ""
    versions: bool = False
    trailing_delimiter: bool = False


class Generations:
    """Generation numbers: microseconds of the clock, strictly increasing across all buckets."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = 0

    def seen(self, generation: int) -> None:
        """It is given already."""
        self._last = max(self._last, generation)

    def next(self) -> int:
        self._last = max(self._last + 1, int(self._clock() * 1e6))
        return self._last


@dataclass
class Bucket:
    """One bucket. Every method is atomic."""

    name: str
    created: float
    metadata: Metadata
    clock: Callable[[], float]
    generations: Generations
    lock: threading.RLock
    disk: Disk | None = None
    metageneration: int = 1
    policy: Metadata = field(default_factory=lambda: {"bindings": [], "version": 1})
    policy_changes: int = 0
    _live: dict[str, Object] = field(default_factory=dict)
    _archive: dict[str, list[Object]] = field(default_factory=dict)
    _names: list[str] | None = None

    def __post_init__(self) -> None:
        self._refuse_versions(self.metadata)
        for found in self.disk.load(self.name) if self.disk else ():
            self._live[found.name] = found
            self.generations.seen(found.generation)

    def _refuse_versions(self, metadata: Metadata) -> None:
        if self.disk and metadata.get("versioning", {}).get("enabled"):
            raise Refused("A bucket that is kept in a folder keeps no older versions.")

    @property
    def empty(self) -> bool:
        return not self._live and not self._archive

    @property
    def versioned(self) -> bool:
        return bool(self.metadata.get("versioning", {}).get("enabled"))

    def resource(self, host: str) -> Metadata:
        """The API's bucket resource."""
        return {
            "kind": "storage#bucket",
            "id": self.name,
            "selfLink": f"{host}/storage/v1/b/{self.name}",
            "projectNumber": PROJECT_NUMBER,
            "name": self.name,
            "metageneration": str(self.metageneration),
            "generation": "1",
            "location": "US",
            "locationType": "multi-region",
            "storageClass": "STANDARD",
            "etag": base64.b64encode(f"{self.metageneration}".encode()).decode(),
            "timeCreated": rfc3339(self.created),
            "updated": rfc3339(self.created),
        } | self.metadata

    def patch_bucket(self, changes: Metadata, conditions: Preconditions) -> None:
        self._refuse_versions(changes)
        with self.lock:
            conditions.check(1, self.metageneration)
            merged = {**self.metadata, **changes}
            if isinstance(changes.get("labels"), dict):
                labels = {**self.metadata.get("labels", {}), **changes["labels"]}
                merged["labels"] = {key: value for key, value in labels.items() if value is not None}
            self.metadata = {key: value for key, value in merged.items() if value is not None}
            self.metageneration += 1

    @property
    def policy_etag(self) -> str:
        return base64.b64encode(str(self.policy_changes).encode()).decode()

    def set_policy(self, policy: Metadata, etag: str | None) -> bool:
        """False if `etag` is not the present policy's."""
        with self.lock:
            if etag not in (None, self.policy_etag):
                return False
            self.policy, self.policy_changes = policy, self.policy_changes + 1
            return True

    def find(self, name: str, generation: int | None = None) -> Object | None:
        with self.lock:
            live = self._live.get(name)
            if generation is None:
                return live
            versions = [*self._archive.get(name, []), *([live] if live else [])]
            return next((found for found in versions if found.generation == generation), None)

    def get(
        self,
        name: str,
        generation: int | None = None,
        conditions: Preconditions = UNCONDITIONAL,
        *,
        reading: bool = True,
    ) -> Object:
        found = self.find(name, generation)
        if found is None:
            raise Missing(f"No such object: {self.name}/{name}" + (f"#{generation}" if generation else ""))
        conditions.check(found.generation, found.metageneration, reading=reading)
        return found

    def check_write(self, name: str, conditions: Preconditions, may_replace: Callable[[], None] = _allowed) -> None:
        """Refuse what `insert` would refuse without looking at the bytes (how a resumable upload starts)."""
        with self.lock:
            live = self._live.get(name)
            conditions.check(live.generation if live else 0, live.metageneration if live else 0)
            if live is not None:
                may_replace()
                self._check_free(live)

    def insert(
        self,
        name: str,
        data: Data,
        metadata: Metadata,
        *,
        conditions: Preconditions = UNCONDITIONAL,
        checksums: Checksums = UNCLAIMED,
        crc32c: int | None = None,
        component_count: int | None = None,
        may_replace: Callable[[], None] = _allowed,
    ) -> Object:
        """Store a new generation, whole or not at all; `crc32c` is that of `data` when already known."""
        if not 0 < len(name.encode()) <= 1024 or "\n" in name or "\r" in name or name in (".", ".."):
            raise Refused(f"Invalid object name: {name!r}. 1 to 1024 bytes of UTF-8, no line breaks.")
        crc32c = data.crc32c() if crc32c is None else crc32c
        md5 = None
        if checksums.md5 is not None or (data.size <= MD5_LIMIT_BYTES and component_count is None):
            md5 = base64.b64encode(data.md5()).decode()
        _verify("CRC32C", checksums.crc32c, encode_crc32c(crc32c))
        _verify("MD5 hash", checksums.md5, md5)
        fields = writable(metadata)
        aside = self.disk.write(name, data) if self.disk else None
        try:
            with self.lock:
                self.check_write(name, conditions, may_replace)
                now = self.clock()
                made = Object(
                    bucket=self.name,
                    name=name,
                    generation=self.generations.next(),
                    metageneration=1,
                    data=data,
                    size=data.size,
                    crc32c=crc32c,
                    md5=None if component_count is not None else md5,
                    created=now,
                    updated=now,
                    metadata=fields,
                    component_count=component_count,
                )
                if self.disk and aside:
                    made = self.disk.publish(made, aside)
                self._retire(name)
                self._live[name] = made
                return made
        finally:
            if aside:
                aside.unlink(missing_ok=True)

    def amend(
        self,
        name: str,
        changes: Metadata,
        conditions: Preconditions,
        *,
        generation: int | None = None,
        whole: bool = False,
    ) -> Object:
        """Change metadata: PATCH merges and drops nulls, PUT (`whole`) replaces all that a client may set."""
        with self.lock:
            found = self.get(name, generation, conditions, reading=False)
            wanted = dict(changes)
            if not whole:
                wanted = found.metadata | changes
                if isinstance(changes.get("metadata"), dict):
                    wanted["metadata"] = {**found.metadata.get("metadata", {}), **changes["metadata"]}
            fields = writable(wanted)
            _check_custom_time(found.metadata.get("customTime"), fields.get("customTime"))
            if fields.get("metadata") == {}:
                del fields["metadata"]
            made = replace(found, metageneration=found.metageneration + 1, updated=self.clock(), metadata=fields)
            self._put_back(made)
            return made

    def delete(self, name: str, conditions: Preconditions = UNCONDITIONAL, generation: int | None = None) -> None:
        with self.lock:
            found = self.get(name, generation, conditions, reading=False)
            self._check_free(found)
            if self._live.get(name) is not found:
                self._archive[name].remove(found)
                if not self._archive[name]:
                    del self._archive[name]
            else:
                if self.disk:
                    self.disk.remove(found)
                # Naming the generation deletes it for good, as in a versioned bucket of the real service.
                self._retire(name, keep=generation is None)
                self._live.pop(name, None)
                self._names = None

    def _check_free(self, found: Object) -> None:
        """Refuse to delete or overwrite what a hold or the bucket's retention policy keeps."""
        where = f"Object '{self.name}/{found.name}'"
        for hold, words in (("temporaryHold", "Temporary"), ("eventBasedHold", "Event-Based")):
            if found.metadata.get(hold) is True:
                raise Held(
                    f"{where} is under active {words} hold and cannot be deleted, overwritten or archived until "
                    "hold is removed.",
                    "objectUnderActiveHold",
                )
        kept_until = found.created + float(self.metadata.get("retentionPolicy", {}).get("retentionPeriod", 0))
        if self.clock() < kept_until:
            raise Held(
                f"{where} is subject to bucket's retention policy or object retention and cannot be deleted or "
                f"overwritten until {rfc3339(kept_until)}",
                "retentionPolicyNotMet",
            )

    def list(self, query: ListQuery) -> Listing:
        after = _decode_token(query.token)
        with self.lock:
            found = (entry for entry in self._entries(query, after) if entry[0] > after)
            page = list(itertools.islice(found, query.limit + 1))
        more = len(page) > query.limit
        page = page[: query.limit]
        return Listing(
            items=[entry for _, entry in page if isinstance(entry, Object)],
            prefixes=[entry for _, entry in page if isinstance(entry, str)],
            next_token=_encode_token(page[-1][0]) if more else None,
        )

    def swap_data(self, name: str, change: Callable[[Data], Data], *, fresh_checksum: bool) -> None:
        """Damage the stored bytes under the same generation; metadata follows only if `fresh_checksum`."""
        if self.disk:
            raise Refused("A bucket that is kept in a folder is not damaged on purpose.")
        with self.lock:
            found = self.get(name)
            data = change(found.data)
            made = replace(found, data=data)
            if fresh_checksum:
                md5 = base64.b64encode(data.md5()).decode() if found.md5 else None
                made = replace(made, size=data.size, crc32c=data.crc32c(), md5=md5)
            self._put_back(made)

    def _put_back(self, made: Object) -> None:
        if self.disk:
            self.disk.describe(made)
        live = self._live.get(made.name)
        if live is not None and live.generation == made.generation:
            self._live[made.name] = made
        else:
            versions = self._archive[made.name]
            self._archive[made.name] = [made if v.generation == made.generation else v for v in versions]

    def _retire(self, name: str, *, keep: bool = True) -> None:
        old = self._live.get(name)
        if old is None:
            self._names = None
        elif self.versioned and keep:
            self._archive.setdefault(name, []).append(replace(old, deleted=self.clock()))

    def _entries(self, query: ListQuery, after: Key) -> Iterator[tuple[Key, Object | str]]:
        if query.versions:
            names = sorted({*self._live, *self._archive})
        else:
            self._names = self._names if self._names is not None else sorted(self._live)
            names = self._names
        at = bisect.bisect_left(names, max(query.prefix, query.start, after[0]))
        while at < len(names) and names[at].startswith(query.prefix):
            name = names[at]
            if query.end and name >= query.end:
                return
            group = _group(name, query)
            if group is None or (query.trailing_delimiter and name == group):
                old = self._archive.get(name, []) if query.versions else []
                live = self._live.get(name)
                for found in [*old, *([live] if live else [])]:
                    yield (name, found.generation), found
            if group is None:
                at += 1
            else:
                yield (group, _GROUP), group
                at = bisect.bisect_left(names, group + _LAST)


def _group(name: str, query: ListQuery) -> str | None:
    """The common prefix that stands for `name` in the listing, if any."""
    if not query.delimiter:
        return None
    found = name.find(query.delimiter, len(query.prefix))
    return None if found < 0 else name[: found + len(query.delimiter)]


def _encode_token(key: Key) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def _decode_token(token: str) -> Key:
    if not token:
        return ("", -1)
    try:
        name, generation = json.loads(base64.urlsafe_b64decode(token))
        return (str(name), int(generation))
    except ValueError:
        raise Refused(f"Invalid pageToken: {token!r}.") from None


def _verify(what: str, claimed: str | None, actual: str | None) -> None:
    if claimed is not None and claimed != actual:
        raise Refused(f'Provided {what} "{claimed}" doesn\'t match calculated {what} "{actual}".')


def _check_custom_time(before: str | None, after: str | None) -> None:
    if before is None:
        return
    if after is None:
        raise Refused("Custom time cannot be removed once it is set.")
    if parse_time(after) < parse_time(before):
        raise Refused(f"Custom time cannot be moved back: it is {before}, the request says {after}.")


class Storage:
    """All buckets. In `folder`, where there is one, each has what it had when it was made there before."""

    def __init__(self, clock: Callable[[], float] = time.time, *, folder: Path | None = None) -> None:
        self._clock = clock
        self._folder = folder
        self._generations = Generations(clock)
        self._lock = threading.RLock()
        self._buckets: dict[str, Bucket] = {}

    def create_bucket(self, name: str, metadata: Metadata | None = None) -> Bucket:
        if not (3 <= len(name) <= 222) or not all(c.isalnum() or c in "-_." for c in name) or name != name.lower():
            raise Refused(f"Invalid bucket name: {name!r}. 3 to 63 of a-z, 0-9, '-', '_' and '.'.")
        with self._lock:
            if name in self._buckets:
                raise ApiError(
                    409, "Your previous request to create the named bucket succeeded and you already own it."
                )
            kept = {key: value for key, value in (metadata or {}).items() if key not in ("name", "kind", "id")}
            disk = Disk(self._folder / name) if self._folder else None
            made = Bucket(name, self._clock(), kept, self._clock, self._generations, self._lock, disk)
            self._buckets[name] = made
            return made

    def bucket(self, name: str) -> Bucket:
        found = self._buckets.get(name)
        if found is None:
            raise Missing("The specified bucket does not exist.")
        return found

    def buckets(self, prefix: str = "") -> list[Bucket]:
        with self._lock:
            return [self._buckets[name] for name in sorted(self._buckets) if name.startswith(prefix)]

    def delete_bucket(self, name: str, conditions: Preconditions = UNCONDITIONAL) -> None:
        with self._lock:
            found = self.bucket(name)
            conditions.check(1, found.metageneration)
            if not found.empty:
                raise ApiError(409, "The bucket you tried to delete is not empty.")
            del self._buckets[name]

    def forget_everything(self) -> None:
        with self._lock:
            self._buckets.clear()
