"""What is rare at a bucket - listing, copying, deleting, looking whether it is there - by Google's own client.

The client costs 16 MB and a quarter of a second to import, so it is loaded by its first use.
"""

from __future__ import annotations

import base64
import os
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from agent.store.base import AlreadyExists, Forbidden, NotFound, StoredObject, StoreError, Unavailable
from agent.store.credentials import Token

_STALL = 10.0  # seconds, at most, that one answer is waited for
_NO_BUCKET = "The specified bucket does not exist"
_FIELDS = "name,size,crc32c,generation,updated"
_T = TypeVar("_T")


class Control:
    """The rare operations on the objects of one bucket under `prefix`, which is empty or ends in '/'."""

    def __init__(self, endpoint: str, token: Token, bucket: str, prefix: str) -> None:
        self._endpoint, self._token = endpoint, token
        self._bucket, self._prefix = bucket, prefix
        self._url = f"gs://{bucket}/{prefix}"
        self._lock = threading.Lock()
        self._client: Any = None

    def list(self, prefix: str, deadline: float) -> list[StoredObject]:
        def pages(bucket: Any, limits: dict[str, Any]) -> list[StoredObject]:
            fields = f"items({_FIELDS}),nextPageToken"
            found = []
            for page in bucket.list_blobs(prefix=self._prefix + prefix, fields=fields, **limits).pages:
                found += [self._stored(blob) for blob in page]
                if time.monotonic() > deadline:
                    raise Unavailable(f"listing {self._url}{prefix}: out of time after {len(found)} objects")
            return found

        return self._call("listing", prefix, "storage.objects.list", deadline, pages)

    def check(self, deadline: float) -> None:
        # Listing, not the bucket's own metadata: a role that may use objects need not include that.
        def first(bucket: Any, limits: dict[str, Any]) -> None:
            next(iter(bucket.list_blobs(prefix=self._prefix, max_results=1, fields="items(name)", **limits)), None)

        self._call("looking at", "", "storage.objects.list", deadline, first)

    def delete(self, name: str, deadline: float) -> None:
        def remove(bucket: Any, limits: dict[str, Any]) -> None:
            bucket.blob(self._prefix + name).delete(**limits)

        try:
            self._call("deleting", name, "storage.objects.delete", deadline, remove)
        except NotFound as error:
            if _NO_BUCKET in str(error.__cause__):
                raise

    def copy(self, source: str, target: str, deadline: float) -> StoredObject:
        def rewrite(bucket: Any, limits: dict[str, Any]) -> StoredObject:
            old, new = bucket.blob(self._prefix + source), bucket.blob(self._prefix + target)
            token = None
            while True:
                token, _, _ = new.rewrite(old, token=token, if_generation_match=0, **limits)
                if token is None:
                    return self._stored(new)

        try:
            return self._call("copying", source, "storage.objects.create", deadline, rewrite)
        except (AlreadyExists, Forbidden):
            # Our own earlier try may have got through, its answer lost; a 403 also means "not over this one".
            there, wanted = self._find(target, deadline), self._find(source, deadline)
            if there is None or wanted is None:
                raise
            if (there.size, there.crc32c) == (wanted.size, wanted.crc32c):
                return there
            raise AlreadyExists(
                f"{self._url}{target} exists with other content than {source}. "
                "Objects are never overwritten: choose another name"
            ) from None

    def _find(self, name: str, deadline: float) -> StoredObject | None:
        return next((each for each in self.list(name, deadline) if each.name == name), None)

    def _stored(self, blob: Any) -> StoredObject:
        return StoredObject(
            name=blob.name.removeprefix(self._prefix),
            size=blob.size,
            crc32c=int.from_bytes(base64.b64decode(blob.crc32c)),
            generation=blob.generation,
            updated=blob.updated.timestamp(),
        )

    def _call(
        self,
        doing: str,
        name: str,
        permission: str,
        deadline: float,
        act: Callable[[Any, dict[str, Any]], _T],
    ) -> _T:
        import google.api_core.exceptions as refused  # noqa: PLC0415
        import requests  # noqa: PLC0415
        from google.auth.exceptions import GoogleAuthError, InvalidOperation  # noqa: PLC0415

        where = f"{self._url}{name}"
        try:
            return act(self._open(deadline), _limits(deadline))
        except refused.NotFound as error:
            raise missing(where, self._bucket, error.message) from error
        except (refused.Forbidden, refused.Unauthorized) as error:
            raise forbidden(where, permission, self._token.identity(), error.message) from None
        except InvalidOperation:  # an anonymous caller got a 401, and has no token to renew
            raise forbidden(where, permission, self._token.identity(), "401 Unauthorized") from None
        except refused.PreconditionFailed as error:
            raise AlreadyExists(f"{where}: {error.message}") from error
        except (refused.RetryError, refused.ServerError, refused.TooManyRequests) as error:
            raise Unavailable(f"{doing} {where}: {error.message}") from error
        except (requests.ConnectionError, requests.Timeout, GoogleAuthError, ConnectionError) as error:
            raise Unavailable(f"{doing} {where}: {type(error).__name__}") from None
        except refused.GoogleAPICallError as error:
            raise StoreError(f"{doing} {where}: status {error.code}, {error.message}") from error

    def _open(self, deadline: float) -> Any:
        self._token.renew(deadline)
        with self._lock:
            if self._client is None:
                # Else it asks, from a thread of its own, for what a VM's identity need not be allowed to see.
                os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
                from google.cloud.storage import Client  # noqa: PLC0415

                self._client = Client(
                    project="none",  # no operation here has to do with one, and looking for it takes seconds
                    credentials=self._token.google(deadline),
                    client_options={"api_endpoint": self._endpoint},
                )
            return self._client.bucket(self._bucket)


def _limits(deadline: float) -> dict[str, Any]:
    """Timeout and retry of each request that Google's client makes."""
    from google.cloud.storage.retry import DEFAULT_RETRY  # noqa: PLC0415

    left = deadline - time.monotonic()
    if left <= 0:
        raise Unavailable("out of time before the first try")

    retry = DEFAULT_RETRY.with_timeout(left).with_delay(initial=0.1, maximum=2.0, multiplier=2.0)
    return {"timeout": min(_STALL, left / 3), "retry": retry}


def missing(where: str, bucket: str, reason: str) -> NotFound:
    """The error for a 404: whether it is the object or the bucket."""
    if _NO_BUCKET in reason:
        return NotFound(
            f"bucket {bucket} does not exist ({where}). Make it with the stacks (`cdktf deploy`) or "
            f"`gcloud storage buckets create gs://{bucket}`, or correct checkpoint.bucket in the run file"
        )
    return NotFound(f"{where} does not exist")


def forbidden(where: str, permission: str, identity: str, reason: str) -> Forbidden:
    """The error for a 401 or 403: who lacks what, and where to give it."""
    return Forbidden(
        f"{where}: {identity} needs {permission}; give it roles/storage.objectUser on the bucket, or a role "
        f"with that permission. The server said: {reason}"
    )
