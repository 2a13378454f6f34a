"""What is rare at a bucket: listing, copying, deleting, looking whether it is there."""

from __future__ import annotations

import builtins
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urlencode

from agent.store import batch
from agent.store.answers import FIELDS, Answers
from agent.store.base import AlreadyExists, Corrupt, NotFound, StoredObject, StoreError, check_name
from agent.store.reply import Reply
from agent.store.transport import Transport

_DELETERS = 8  # connections that delete at the same time


class Control:
    """The rare operations on the objects that `answers` speaks of."""

    def __init__(self, transport: Transport, answers: Answers) -> None:
        self._transport, self._answers = transport, answers

    def list(self, prefix: str, deadline: float, limit: int | None = None) -> list[StoredObject]:
        asked = {"prefix": self._answers.prefix + prefix, "fields": f"items({FIELDS}),nextPageToken"}
        found: list[StoredObject] = []
        for page in self._pages(prefix, asked, deadline, limit):
            found += [self._answers.stored(item) for item in page.get("items", [])]
            if limit is not None and len(found) >= limit:
                return found[:limit]
        return found

    def folders(self, prefix: str, deadline: float) -> builtins.list[str]:
        whole = self._answers.prefix + prefix
        asked = {"prefix": whole, "delimiter": "/", "fields": "prefixes,nextPageToken"}
        pages = self._pages(prefix, asked, deadline)
        return sorted(each.removeprefix(self._answers.prefix) for page in pages for each in page.get("prefixes", []))

    def check(self, deadline: float) -> None:
        # Listing, not the bucket's own metadata: a role that may use objects need not include that.
        self.list("", deadline, limit=1)

    def delete(self, name: str, deadline: float) -> None:
        reply = self._transport.request(
            "DELETE", self._answers.path(name), deadline=deadline, doing=f"deleting {self._answers.url}/{name}"
        )
        error = self._stays(name, reply)
        if error:
            raise error

    def delete_many(self, names: Iterable[str], deadline: float) -> dict[str, StoreError]:
        wanted = [check_name(name) for name in dict.fromkeys(names)]
        batches = [wanted[at : at + batch.LIMIT] for at in range(0, len(wanted), batch.LIMIT)]
        stayed: dict[str, StoreError] = {}
        with ThreadPoolExecutor(_DELETERS, "store-delete") as deleters:
            for each in deleters.map(lambda some: self._delete_batch(some, deadline), batches):
                stayed |= each
        return stayed

    def copy(self, source: str, target: str, deadline: float) -> StoredObject:
        path = f"{self._answers.path(source)}/rewriteTo{self._answers.path(target).removeprefix('/storage/v1')}"
        asked = {"ifGenerationMatch": "0"}
        while True:
            reply = self._transport.request(
                "POST",
                f"{path}?{urlencode(asked)}",
                deadline=deadline,
                doing=f"copying {self._answers.url}/{source}",
            )
            if reply.status != 200:
                # Our own earlier try may have got through, its answer lost; a 403 also means "not over this one".
                if reply.status not in (403, 412):
                    raise self._answers.failure(reply, source, "storage.objects.create")
                return self._copied(source, target, reply, deadline)
            done = reply.document()
            if done.get("done"):
                return self._answers.stored(done.get("resource", {}))
            asked["rewriteToken"] = str(done.get("rewriteToken", ""))

    def compose(self, name: str, sources: Sequence[str], wanted: tuple[int, int], deadline: float) -> StoredObject:
        """`wanted`: the size and CRC32C that it must have."""
        names = [{"name": self._answers.prefix + check_name(source)} for source in sources]
        asked = {"sourceObjects": names, "destination": {"contentType": "application/octet-stream"}}
        url = f"{self._answers.url}/{name}"
        reply = self._transport.request(
            "POST",
            f"{self._answers.path(name)}/compose?ifGenerationMatch=0&fields={FIELDS}",
            deadline=deadline,
            doing=f"joining {len(sources)} objects to {url}",
            body=(json.dumps(asked).encode(),),
            headers={"Content-Type": "application/json"},
        )
        if reply.status == 200:
            made = self._answers.stored(reply.document())
            if (made.size, made.crc32c) == wanted:
                return made
            raise Corrupt(
                f"{url} was joined to other content than its parts' ({made.size} bytes, crc32c {made.crc32c:08x}; "
                f"wanted: {wanted[0]} bytes, crc32c {wanted[1]:08x}). Its name is spent: choose another one"
            )
        refusal = self._answers.failure(reply, name, "storage.objects.create, and .get for its parts")
        if reply.status == 404 and not reply.lacks_bucket():
            raise NotFound(f"one of the {len(sources)} parts of {url} does not exist: {reply.reason()}")
        there = self.find(name, deadline) if reply.status in (403, 412) else None
        if there is None:
            raise refusal
        if (there.size, there.crc32c) == wanted:
            return there
        raise AlreadyExists(f"{url} exists with other content. Objects are never overwritten: choose another name")

    def find(self, name: str, deadline: float) -> StoredObject | None:
        """The object of that name, asked of one who may list but perhaps not see it."""
        return next((each for each in self.list(name, deadline, limit=1) if each.name == name), None)

    def _copied(self, source: str, target: str, refused: Reply, deadline: float) -> StoredObject:
        there, wanted = self.find(target, deadline), self.find(source, deadline)
        if there is None or wanted is None:
            raise self._answers.failure(refused, source, "storage.objects.create")
        if (there.size, there.crc32c) == (wanted.size, wanted.crc32c):
            return there
        raise AlreadyExists(
            f"{self._answers.url}/{target} exists with other content than {source}. "
            "Objects are never overwritten: choose another name"
        )

    def _pages(
        self, prefix: str, asked: dict[str, str], deadline: float, limit: int | None = None
    ) -> Iterator[dict[str, Any]]:
        if limit is not None:
            asked = {**asked, "maxResults": str(limit)}
        while True:
            reply = self._transport.request(
                "GET",
                f"/storage/v1/b/{self._answers.bucket}/o?{urlencode(asked, quote_via=quote)}",
                deadline=deadline,
                doing=f"listing {self._answers.url}/{prefix}",
            )
            if reply.status != 200:
                raise self._answers.failure(reply, prefix, "storage.objects.list")
            page = reply.document()
            yield page
            if not page.get("nextPageToken"):
                return
            asked = {**asked, "pageToken": page["nextPageToken"]}

    def _delete_batch(self, names: builtins.list[str], deadline: float) -> dict[str, StoreError]:
        stayed: dict[str, StoreError] = {}
        doing = f"deleting {len(names)} objects of {self._answers.url}, from {names[0]}"
        try:
            for name, reply in batch.ask(
                self._transport, {name: ("DELETE", self._answers.path(name)) for name in names}, deadline, doing
            ).items():
                error = self._stays(name, reply)
                if error:
                    stayed[name] = error
        except StoreError as error:
            return dict.fromkeys(names, error)
        return stayed

    def _stays(self, name: str, reply: Reply) -> StoreError | None:
        """Why an object could not be deleted; None if it is gone, or was not there."""
        if reply.status in (200, 204) or (reply.status == 404 and not reply.lacks_bucket()):
            return None
        return self._answers.failure(reply, name, "storage.objects.delete")
