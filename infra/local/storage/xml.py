"""The XML API as far as Google's Go client reads by it, and Terraform's state with it: GET and HEAD /BUCKET/OBJECT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlencode
from xml.sax.saxutils import escape

from infra.local.storage.buckets import not_played
from infra.local.storage.errors import ApiError
from infra.local.storage.memory import Data
from infra.local.storage.messages import Request, Response

_CONDITIONS = {
    "x-goog-if-generation-match": "ifGenerationMatch",
    "x-goog-if-generation-not-match": "ifGenerationNotMatch",
    "x-goog-if-metageneration-match": "ifMetagenerationMatch",
    "x-goog-if-metageneration-not-match": "ifMetagenerationNotMatch",
}
_KNOWN = {"generation", "userProject"}
_CODES = {
    400: "InvalidArgument",
    401: "AuthenticationRequired",
    403: "AccessDenied",
    412: "PreconditionFailed",
    416: "InvalidRange",
}


def read(request: Request, media: Callable[[Request], Response]) -> Response:
    """Ask `media` as the JSON API would, and put a refusal into this API's words."""
    unknown = set(request.query) - _KNOWN
    try:
        if unknown:
            raise not_played(f"?{min(unknown)} in the XML API")
        asked = {name: request.headers[header] for header, name in _CONDITIONS.items() if header in request.headers}
        return media(replace(request, query_string=urlencode({**request.query, **asked})))
    except ApiError as error:
        if error.status == 304:
            raise
        missing = "NoSuchBucket" if "bucket does not exist" in error.message else "NoSuchKey"
        code = missing if error.status == 404 else _CODES.get(error.status, "InternalError")
        words = f"<Error><Code>{code}</Code><Message>{escape(error.message)}</Message></Error>"
        headers = {"Content-Type": "application/xml; charset=UTF-8", **error.headers}
        return Response(error.status, headers, Data.of(f"<?xml version='1.0' encoding='UTF-8'?>{words}".encode()))
