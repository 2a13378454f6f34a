"""Which operation on which bucket and object a method and path name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

_BUCKET = r"/b/(?P<bucket>[^/]+)"
_OBJECT = _BUCKET + r"/o/(?P<name>[^/]+)"
_TO = r"/b/(?P<to_bucket>[^/]+)/o/(?P<to_name>[^/]+)"
_STORAGE = r"/storage/v1"

# Method, path, operation, and the IAM action it is known by (to fault rules and in the log of requests).
_ROUTES = [
    ("GET", _STORAGE + "/b", "bucket_list", "buckets.list"),
    ("POST", _STORAGE + "/b", "bucket_create", "buckets.create"),
    ("GET", _STORAGE + _BUCKET, "bucket_get", "buckets.get"),
    ("PATCH", _STORAGE + _BUCKET, "bucket_patch", "buckets.update"),
    ("PUT", _STORAGE + _BUCKET, "bucket_update", "buckets.update"),
    ("DELETE", _STORAGE + _BUCKET, "bucket_delete", "buckets.delete"),
    ("GET", _STORAGE + _BUCKET + "/iam", "bucket_policy", "buckets.getIamPolicy"),
    ("PUT", _STORAGE + _BUCKET + "/iam", "bucket_set_policy", "buckets.setIamPolicy"),
    ("GET", _STORAGE + _BUCKET + "/iam/testPermissions", "bucket_permissions", "buckets.get"),
    ("GET", _STORAGE + _BUCKET + "/o", "object_list", "list"),
    ("GET", _STORAGE + _OBJECT, "object_get", "get"),
    ("GET", "/download" + _STORAGE + _OBJECT, "object_get", "get"),
    ("PATCH", _STORAGE + _OBJECT, "object_patch", "update"),
    ("PUT", _STORAGE + _OBJECT, "object_update", "update"),
    ("DELETE", _STORAGE + _OBJECT, "object_delete", "delete"),
    ("POST", _STORAGE + _OBJECT + "/compose", "object_compose", "create"),
    ("POST", _STORAGE + _OBJECT + "/rewriteTo" + _TO, "object_rewrite", "create"),
    ("POST", _STORAGE + _OBJECT + "/copyTo" + _TO, "object_copy", "create"),
    ("POST", _STORAGE + _OBJECT + r"/moveTo/o/(?P<to_name>[^/]+)", "object_move", "create"),
    ("POST", "(?:/resumable)?/upload" + _STORAGE + _BUCKET + "/o", "upload", "create"),
    ("PUT", "(?:/resumable)?/upload" + _STORAGE + _BUCKET + "/o", "upload", "create"),
    ("DELETE", "(?:/resumable)?/upload" + _STORAGE + _BUCKET + "/o", "upload", "create"),
    ("POST", "/batch" + _STORAGE, "batch", "batch"),
    ("GET", _STORAGE + "/projects/[^/]+/serviceAccount", "service_account", "buckets.list"),
    # The XML API, by which Google's Go client reads. Names that begin like the other roads are theirs.
    ("GET", r"/(?!(?:storage|upload|resumable|download|batch)/)(?P<bucket>[^/]+)/(?P<name>.+)", "xml_get", "get"),
]
_COMPILED = [(method, re.compile(path), operation, action) for method, path, operation, action in _ROUTES]


@dataclass(frozen=True)
class Target:
    """What a request is about. `operation` is "" if the API has no such path."""

    path: str
    operation: str = ""
    action: str = ""
    bucket: str = ""
    name: str = ""
    to_bucket: str = ""
    to_name: str = ""

    @property
    def about(self) -> str:
        """The name of the object that comes to be or is looked at."""
        return self.to_name or self.name


def find_target(method: str, path: str) -> Target:
    """The target of a request; `path` is still percent-encoded and without its query."""
    method = "GET" if method == "HEAD" else method
    for wanted, pattern, operation, action in _COMPILED:
        match = pattern.fullmatch(path) if wanted == method else None
        if match is not None:
            named = {key: unquote(value) for key, value in match.groupdict().items()}
            if operation == "object_move":
                named["to_bucket"] = named["bucket"]
            return Target(path, operation, action, **named)
    return Target(path)
