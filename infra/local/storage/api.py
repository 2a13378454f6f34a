"""The JSON API of objects but for media: metadata, listings, copies, deletions."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

from infra.local.storage.buckets import BucketApi, not_played
from infra.local.storage.errors import Missing, Refused
from infra.local.storage.memory import Data
from infra.local.storage.messages import Request, Response, flag, json_response, number
from infra.local.storage.objects import PAGE_LIMIT, ListQuery
from infra.local.storage.resources import Metadata, Object, Preconditions
from infra.local.storage.uploads import parse_json

COMPOSE_LIMIT = 32
_NOT_PLAYED = ("matchGlob", "softDeleted", "filter")


class Api(BucketApi):
    """All but media."""

    def find(self, request: Request, bucket: str, name: str, *, source: bool = False) -> Object:
        """The object a request reads. Who may not list is told 403 of what is missing, as the service does."""
        self._iam.check(request.identity, "get", bucket, name)
        infix = "Source" if source else ""
        generation = number(request.query, "sourceGeneration" if source else "generation")
        conditions = Preconditions.of(request.query, infix)
        try:
            return self._storage.bucket(bucket).get(name, generation, conditions, reading=not source)
        except Missing:
            self._iam.check(request.identity, "list", bucket, name)
            raise

    def may_replace(self, request: Request, bucket: str, name: str) -> Callable[[], None]:
        """Overwriting deletes the old generation, and needs the permission for that."""
        return lambda: self._iam.check(request.identity, "delete", bucket, name)

    def _object_list(self, request: Request) -> Response:
        query = request.query
        for name in _NOT_PLAYED:
            if query.get(name, "").lower() not in ("", "false"):
                raise not_played(f"the listing parameter {name}")
        self._iam.check(request.identity, "list", request.target.bucket, query.get("prefix", ""))
        limit = number(query, "maxResults")
        found = self._storage.bucket(request.target.bucket).list(
            ListQuery(
                prefix=query.get("prefix", ""),
                delimiter=query.get("delimiter", ""),
                start=query.get("startOffset", ""),
                end=query.get("endOffset", ""),
                limit=min(limit or PAGE_LIMIT, PAGE_LIMIT),
                token=query.get("pageToken", ""),
                versions=flag(query, "versions"),
                trailing_delimiter=flag(query, "includeTrailingDelimiter"),
            )
        )
        document: Metadata = {"kind": "storage#objects"}
        if found.items:
            document["items"] = [item.resource(request.host) for item in found.items]
        if found.prefixes:
            document["prefixes"] = found.prefixes
        if found.next_token:
            document["nextPageToken"] = found.next_token
        return json_response(document)

    def _object_get(self, request: Request) -> Response:
        found = self.find(request, request.target.bucket, request.target.name)
        return json_response(found.resource(request.host))

    def _object_patch(self, request: Request, *, whole: bool = False) -> Response:
        target = request.target
        changes = parse_json(request.body.read())
        self._iam.check(request.identity, "update", target.bucket, target.name)
        changed = self._storage.bucket(target.bucket).amend(
            target.name,
            changes,
            Preconditions.of(request.query),
            generation=number(request.query, "generation"),
            whole=whole,
        )
        return json_response(changed.resource(request.host))

    def _object_update(self, request: Request) -> Response:
        return self._object_patch(request, whole=True)

    def _object_delete(self, request: Request) -> Response:
        target = request.target
        self._iam.check(request.identity, "delete", target.bucket, target.name)
        generation = number(request.query, "generation")
        self._storage.bucket(target.bucket).delete(target.name, Preconditions.of(request.query), generation)
        return Response(204)

    def _object_compose(self, request: Request) -> Response:
        target = request.target
        document = parse_json(request.body.read())
        sources = document.get("sourceObjects", [])
        if not 0 < len(sources) <= COMPOSE_LIMIT:
            raise Refused(f"The number of source components provided ({len(sources)}) is not in 1 to {COMPOSE_LIMIT}.")
        self._iam.check(request.identity, "create", target.bucket, target.name)
        bucket = self._storage.bucket(target.bucket)
        parts = []
        for source in sources:
            if not isinstance(source, dict) or not source.get("name"):
                raise Refused("Each of sourceObjects needs a name.")
            self._iam.check(request.identity, "get", target.bucket, source["name"])
            match = source.get("objectPreconditions", {}).get("ifGenerationMatch")
            conditions = Preconditions(None if match is None else int(match))
            generation = source.get("generation")
            found = bucket.get(
                source["name"], None if generation is None else int(generation), conditions, reading=False
            )
            parts.append(found)
        metadata = dict(document.get("destination") or {})
        # Google's own clients send the type as null where they have none.
        metadata["contentType"] = metadata.get("contentType") or parts[0].metadata.get("contentType")
        made = bucket.insert(
            target.name,
            Data.joined(part.data for part in parts),
            metadata,
            conditions=Preconditions.of(request.query),
            component_count=sum(part.component_count or 1 for part in parts),
            may_replace=self.may_replace(request, target.bucket, target.name),
        )
        return json_response(made.resource(request.host))

    def _object_rewrite(self, request: Request) -> Response:
        source = self._copy_source(request)
        total = source.size
        done = _rewritten(request.query, source) + (number(request.query, "maxBytesRewrittenPerCall") or total)
        if done < total:
            token = base64.urlsafe_b64encode(json.dumps([source.generation, done]).encode()).decode()
            return json_response(
                {
                    "kind": "storage#rewriteResponse",
                    "totalBytesRewritten": str(done),
                    "objectSize": str(total),
                    "done": False,
                    "rewriteToken": token,
                }
            )
        made = self._copy(request, source)
        return json_response(
            {
                "kind": "storage#rewriteResponse",
                "totalBytesRewritten": str(total),
                "objectSize": str(total),
                "done": True,
                "resource": made.resource(request.host),
            }
        )

    def _object_copy(self, request: Request) -> Response:
        return json_response(self._copy(request, self._copy_source(request)).resource(request.host))

    def _object_move(self, request: Request) -> Response:
        target = request.target
        source = self._copy_source(request)
        self._iam.check(request.identity, "delete", target.bucket, target.name)
        made = self._copy(request, source)
        self._storage.bucket(target.bucket).delete(source.name, generation=source.generation)
        return json_response(made.resource(request.host))

    def _copy_source(self, request: Request) -> Object:
        return self.find(request, request.target.bucket, request.target.name, source=True)

    def _copy(self, request: Request, source: Object) -> Object:
        target = request.target
        described = parse_json(request.body.read())
        self._iam.check(request.identity, "create", target.to_bucket, target.to_name)
        return self._storage.bucket(target.to_bucket).insert(
            target.to_name,
            source.data,
            described or source.metadata,
            conditions=Preconditions.of(request.query),
            crc32c=source.crc32c,
            component_count=source.component_count,
            may_replace=self.may_replace(request, target.to_bucket, target.to_name),
        )


def _rewritten(query: dict[str, str], source: Object) -> int:
    """How many bytes the calls before this one rewrote, by their token."""
    token = query.get("rewriteToken")
    if not token:
        return 0
    try:
        generation, done = json.loads(base64.urlsafe_b64decode(token))
    except ValueError:
        raise Refused(f"Invalid rewriteToken: {token!r}.") from None
    if generation != source.generation:
        raise Refused("The source object changed since this rewrite began.")
    return int(done)
