"""The JSON API of buckets: made, described, changed, deleted, and who is granted what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from infra.local.storage.errors import ApiError, Refused
from infra.local.storage.iam import Iam
from infra.local.storage.messages import Request, Response, json_response, number
from infra.local.storage.objects import PROJECT_NUMBER, Bucket, Storage
from infra.local.storage.resources import Preconditions
from infra.local.storage.uploads import parse_json

_CONDITIONS_VERSION = 3  # of a policy that has conditions


class BucketApi:
    """Carries out requests whose identity is known; here those about whole buckets."""

    def __init__(self, storage: Storage, iam: Iam) -> None:
        self._storage = storage
        self._iam = iam

    def handle(self, request: Request) -> Response:
        """The answer to a request; ApiError where it is refused.

        What is not played is refused in words, never as missing: a client takes that for "no such object".
        """
        handler: Callable[[Request], Response] | None = getattr(self, f"_{request.target.operation}", None)
        if handler is None:
            raise not_played(f"{request.method} {request.target.path}")
        if request.headers.get("X-Goog-Encryption-Algorithm"):
            raise not_played("keys of the client's own")
        return handler(request)

    def _bucket_list(self, request: Request) -> Response:
        self._iam.check(request.identity, "buckets.list", "")
        found = self._storage.buckets(request.query.get("prefix", ""))
        items = [bucket.resource(request.host) for bucket in found]
        return json_response({"kind": "storage#buckets", "items": items})

    def _bucket_create(self, request: Request) -> Response:
        metadata = parse_json(request.body.read())
        name = str(metadata.get("name", ""))
        self._iam.check(request.identity, "buckets.create", name)
        return json_response(self._storage.create_bucket(name, metadata).resource(request.host))

    def _bucket_get(self, request: Request) -> Response:
        bucket = self._bucket(request, "buckets.get")
        Preconditions.of(request.query).check(1, bucket.metageneration, reading=True)
        return json_response(bucket.resource(request.host))

    def _bucket_patch(self, request: Request) -> Response:
        bucket = self._bucket(request, "buckets.update")
        changes = parse_json(request.body.read())
        settled = ("kind", "id", "selfLink", "name", "generation", "metageneration", "etag", "timeCreated", "updated")
        changes = {key: value for key, value in changes.items() if key not in settled}
        bucket.patch_bucket(changes, Preconditions.of(request.query))
        return json_response(bucket.resource(request.host))

    _bucket_update = _bucket_patch

    def _bucket_delete(self, request: Request) -> Response:
        self._iam.check(request.identity, "buckets.delete", request.target.bucket)
        self._storage.delete_bucket(request.target.bucket, Preconditions.of(request.query))
        return Response(204)

    def _bucket_permissions(self, request: Request) -> Response:
        bucket = request.target.bucket
        self._storage.bucket(bucket)
        asked = parse_qs(request.query_string).get("permissions", [])
        held = [
            permission
            for permission in asked
            if self._iam.allows(request.identity, permission.removeprefix("storage.").removeprefix("objects."), bucket)
        ]
        return json_response({"kind": "storage#testIamPermissionsResponse", "permissions": held})

    def _bucket(self, request: Request, action: str) -> Bucket:
        self._iam.check(request.identity, action, request.target.bucket)
        return self._storage.bucket(request.target.bucket)

    # Who is granted what: kept for who asks, and without effect. Rules are set through the control API.

    def _bucket_policy(self, request: Request) -> Response:
        return json_response(_policy(self._bucket(request, "buckets.getIamPolicy"), request))

    def _bucket_set_policy(self, request: Request) -> Response:
        bucket = self._bucket(request, "buckets.setIamPolicy")
        wanted = parse_json(request.body.read())
        bindings = wanted.get("bindings", [])
        if any("condition" in each for each in bindings) and wanted.get("version") != _CONDITIONS_VERSION:
            raise Refused(f"A policy with conditions needs version {_CONDITIONS_VERSION}.")
        if not bucket.set_policy({"bindings": bindings, "version": wanted.get("version", 1)}, wanted.get("etag")):
            raise ApiError(412, "The policy's etag is not the present one: it was changed in the meantime.")
        return json_response(_policy(bucket, request))

    def _service_account(self, request: Request) -> Response:
        self._iam.check(request.identity, "buckets.list", "")
        email = f"service-{PROJECT_NUMBER}@gs-project-accounts.iam.gserviceaccount.com"
        return json_response({"kind": "storage#serviceAccount", "email_address": email})


def not_played(what: str) -> ApiError:
    """Not 501: Google's clients try that again, and again, and show its words to nobody."""
    return ApiError(400, f"The local storage server does not play {what}.", reason="notImplemented")


def _policy(bucket: Bucket, request: Request) -> dict[str, Any]:
    asked = number(request.query, "optionsRequestedPolicyVersion") or 1
    if bucket.policy["version"] > asked and request.method == "GET":
        raise Refused(f"The policy has conditions: ask with optionsRequestedPolicyVersion={_CONDITIONS_VERSION}.")
    named = {"kind": "storage#policy", "resourceId": f"projects/_/buckets/{bucket.name}", "etag": bucket.policy_etag}
    return {**named, **bucket.policy}
