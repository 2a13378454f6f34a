"""What a bucket's answers mean: an object, a JSON document, or the error to raise, with what to do about it."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Any
from urllib.parse import quote

from agent.store.base import Forbidden, Held, NotFound, Refused, StoredObject, StoreError, Unavailable, check_name
from agent.store.credentials import RETRIED, Token
from agent.store.reply import Reply

FIELDS = "name,size,crc32c,generation,updated"
_HELD = frozenset({"objectUnderActiveHold", "retentionPolicyNotMet"})
_REQUESTER_PAYS = "requester pays"


class Answers:
    """The objects of one bucket under `prefix`, which is empty or ends in '/'."""

    def __init__(self, bucket: str, prefix: str, token: Token) -> None:
        self.bucket, self.prefix = bucket, prefix
        self.url = f"gs://{bucket}/{prefix}".rstrip("/")
        self._token = token

    def path(self, name: str) -> str:
        """The object's path in the JSON API."""
        return f"/storage/v1/b/{self.bucket}/o/{quote(self.prefix + check_name(name), safe='')}"

    def stored(self, item: dict[str, Any]) -> StoredObject:
        """The object that a resource of the JSON API describes."""
        try:
            return StoredObject(
                name=item["name"].removeprefix(self.prefix),
                size=int(item["size"]),
                crc32c=decode(item["crc32c"]),
                generation=int(item["generation"]),
                updated=datetime.fromisoformat(item["updated"]).timestamp(),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Refused(
                f"{self.url}: not a description of an object ({error!r}): {json.dumps(item)[:300]}. "
                "An object that is encrypted with a customer's own key has no crc32c here, and can't be used"
            ) from None

    def failure(self, reply: Reply, name: str, permission: str) -> StoreError:
        """The error for a refusal. `permission` is what the question needed."""
        where = f"{self.url}/{name}"
        reason = reply.reason()
        if reply.status == 403 and reply.kind() in _HELD:
            return Held(f"{where} can't be changed or deleted yet: {reason}")
        if reply.status in (401, 403):
            return Forbidden(
                f"{where}: {self._token.identity()} needs {permission}; give it roles/storage.objectUser on the "
                f"bucket, or a role with that permission. The server said: {reason}"
            )
        if reply.lacks_bucket():
            return NotFound(
                f"bucket {self.bucket} does not exist ({where}). Make it with the stacks (`cdktf deploy`) or "
                f"`gcloud storage buckets create gs://{self.bucket}`, or correct checkpoint.bucket in the run file"
            )
        if reply.status == 404:
            return self.missing(name)
        if reply.status == 400 and _REQUESTER_PAYS in reason:
            return StoreError(
                f"bucket {self.bucket} lets its requesters pay, which is not supported here ({where}). Turn it off: "
                f"`gcloud storage buckets update gs://{self.bucket} --no-requester-pays`, or use another bucket"
            )
        if reply.status in RETRIED:
            return Unavailable(f"{where}: status {reply.status}, {reason}")
        return Refused(f"{where}: status {reply.status}, {reason}")

    def missing(self, name: str) -> NotFound:
        return NotFound(f"{self.url}/{name} does not exist")


def encode(crc: int) -> str:
    return base64.b64encode(crc.to_bytes(4)).decode()


def decode(text: str) -> int:
    """A CRC32C as the JSON API writes it; ValueError for what is none."""
    raw = base64.b64decode(text, validate=True)
    if len(raw) != 4:
        raise ValueError(f"{text!r} is not a CRC32C")
    return int.from_bytes(raw)
