"""The JSON API's media: uploads of the three kinds, and downloads."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import replace
from email.utils import formatdate

from infra.local.storage import xml
from infra.local.storage.api import Api
from infra.local.storage.errors import ApiError, Refused
from infra.local.storage.iam import Iam
from infra.local.storage.memory import Data, Pool
from infra.local.storage.messages import Request, Response, json_response
from infra.local.storage.objects import Storage
from infra.local.storage.resources import Checksums, Object, encode_crc32c
from infra.local.storage.uploads import (
    GRANULE,
    ContentRange,
    Draft,
    Session,
    Sessions,
    draft,
    parse_json,
    split_multipart,
)

_SESSION_WAIT_S = 60.0


class TransferApi(Api):
    """The whole API: what `Api` does, and media."""

    def __init__(self, storage: Storage, iam: Iam, pool: Pool) -> None:
        super().__init__(storage, iam)
        self.sessions = Sessions(pool)

    # Downloads

    def _object_get(self, request: Request) -> Response:
        if request.query.get("alt") != "media":
            return super()._object_get(request)
        return self.media(request)

    def _xml_get(self, request: Request) -> Response:
        return xml.read(request, self.media)

    def media(self, request: Request) -> Response:
        """The object's bytes, or those of them that are asked for."""
        found = self.find(request, request.target.bucket, request.target.name)
        headers = _media_headers(found)
        if plain := _decompressed(found, request.headers.get("Accept-Encoding", "")):
            del headers["Content-Encoding"]
            headers |= {"Warning": "214 UploadServer gunzipped", "Vary": "Accept-Encoding"}
            return Response(200, headers, plain)  # of a range that was asked for nothing is left
        span = _parse_range(request.headers.get("Range"), found.size)
        if span is None:
            return Response(200, headers, found.data)
        start, end = span
        if start >= end:
            raise ApiError(416, "Request range not satisfiable", headers={"Content-Range": f"bytes */{found.size}"})
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{found.size}"
        return Response(206, headers, found.data.part(start, end))

    # Uploads

    def _upload(self, request: Request) -> Response:
        query = request.query
        self._storage.bucket(request.target.bucket)
        if "upload_id" in query:
            return self._resumable(request, query["upload_id"])
        if request.method != "POST":
            raise ApiError(405, "An upload starts with POST.")
        kind = query.get("uploadType")
        headers = request.headers
        if kind == "media":
            made = draft(query, {}, headers, content_type=headers.get("Content-Type"))
            self._check_create(request, made)
            data, crc32c = request.body.data()
            return self._store(request, made, data, crc32c)
        if kind == "multipart":
            whole, _ = request.body.data()
            metadata, media_type, media = split_multipart(whole, headers.get("Content-Type", ""))
            made = draft(query, metadata, headers, content_type=media_type)
            self._check_create(request, made)
            return self._store(request, made, media, None)
        if kind == "resumable":
            metadata = parse_json(request.body.read())
            made = draft(query, metadata, headers, content_type=headers.get("X-Upload-Content-Type"))
            self._check_create(request, made)
            bucket = request.target.bucket
            replaces = self.may_replace(request, bucket, made.name)
            self._storage.bucket(bucket).check_write(made.name, made.conditions, replaces)
            upload_id = self.sessions.begin(bucket, request.identity, made)
            path = f"/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={upload_id}"
            return Response(200, {"Location": request.host + path, "X-GUploader-UploadID": upload_id})
        raise Refused(f"Invalid uploadType: {kind!r}. Use media, multipart or resumable.")

    def _check_create(self, request: Request, made: Draft) -> None:
        self._iam.check(request.identity, "create", request.target.bucket, made.name)

    def _store(self, request: Request, made: Draft, data: Data, crc32c: int | None) -> Response:
        stored = self._insert(request, made, data, crc32c)
        return json_response(stored.resource(request.host))

    def _insert(self, request: Request, made: Draft, data: Data, crc32c: int | None) -> Object:
        bucket = request.target.bucket
        return self._storage.bucket(bucket).insert(
            made.name,
            data,
            made.metadata,
            conditions=made.conditions,
            checksums=made.checksums,
            crc32c=crc32c,
            may_replace=self.may_replace(request, bucket, made.name),
        )

    def _resumable(self, request: Request, upload_id: str) -> Response:
        if request.method == "DELETE":
            self.sessions.cancel(upload_id)
            raise ApiError(499, "Client Closed Request")
        session = self.sessions.get(upload_id)
        # The request before this one may still hold the session while its connection dies.
        if not session.lock.acquire(timeout=_SESSION_WAIT_S):
            raise ApiError(503, "Another request is still sending to this upload.")
        try:
            return self._continue(replace(request, identity=session.identity), session)
        finally:
            session.lock.release()

    def _continue(self, request: Request, session: Session) -> Response:
        span = ContentRange.parse(request.headers.get("Content-Range"))
        if session.done is not None:
            request.body.drain()
            name, generation = session.done
            found = self._storage.bucket(session.bucket).get(name, generation)
            return json_response(found.resource(request.host))
        if span is not None and span.start is None:
            request.body.drain()
            complete = span.total is not None and span.total == session.filling.size
            return self._finish(request, session) if complete else _more(request, session)
        span = span or ContentRange(0, None, request.body.length)
        self._receive(request, session, span)
        if span.total is not None and session.filling.size > span.total:
            raise Refused(f"The upload has {session.filling.size} bytes, more than the {span.total} announced.")
        if session.filling.size == span.total or (span.total is None and request.body.length is None):
            return self._finish(request, session)
        if session.filling.size % GRANULE:
            session.keep_granules()
        return _more(request, session)

    def _receive(self, request: Request, session: Session, span: ContentRange) -> None:
        start, filling = span.start or 0, session.filling
        if start > filling.size:
            request.body.drain()
            raise ApiError(
                503,
                f"Invalid request. According to the Content-Range header, the upload offset is {start} byte(s), "
                f"which exceeds already uploaded size of {filling.size} byte(s).",
            )
        length = request.body.length
        if span.end is not None and length is not None and span.end - start != length:
            request.body.drain()
            raise Refused(f"Content-Range announces {span.end - start} bytes, Content-Length {length}.")
        try:
            request.body.skip(filling.size - start)
            request.body.receive(filling)
        except BaseException:
            session.keep_granules()
            raise

    def _finish(self, request: Request, session: Session) -> Response:
        """Make the object. The session's own checksums and preconditions count, and this request's hashes."""
        made = session.draft
        claimed = made.checksums.merged(Checksums.of(request.headers))
        filling = session.filling
        stored = self._insert(request, replace(made, checksums=claimed), filling.data(), filling.crc32c)
        self.sessions.finish(session, stored.generation)
        return json_response(stored.resource(request.host))


def _more(request: Request, session: Session) -> Response:
    """More is to come: 308, or for clients whose HTTP library would follow that as a redirect, 200 that says so."""
    if request.headers.get("X-GUploader-No-308", "").lower() == "yes":
        return Response(200, {**session.progress(), "X-HTTP-Status-Code-Override": "308"})
    return Response(308, session.progress())


def _decompressed(found: Object, accepted: str) -> Data | None:
    """What is stored compressed, for those who do not take it so; their checksum stays that of the stored bytes."""
    stored = found.metadata
    if (
        stored.get("contentEncoding") != "gzip"
        or "gzip" in accepted
        or "no-transform" in stored.get("cacheControl", "")
    ):
        return None
    try:
        return Data.of(gzip.decompress(bytes(found.data)))
    except (OSError, EOFError, zlib.error):
        return None  # it is not what it says


def _media_headers(found: Object) -> dict[str, str]:
    hashes = f"crc32c={encode_crc32c(found.crc32c)}" + (f",md5={found.md5}" if found.md5 else "")
    headers = {
        "Content-Type": found.metadata.get("contentType", "application/octet-stream"),
        "Accept-Ranges": "bytes",
        "ETag": found.etag,
        "Last-Modified": formatdate(found.updated, usegmt=True),
        "X-Goog-Generation": str(found.generation),
        "X-Goog-Metageneration": str(found.metageneration),
        "X-Goog-Hash": hashes,
        "X-Goog-Storage-Class": found.metadata.get("storageClass", "STANDARD"),
        "X-Goog-Stored-Content-Encoding": found.metadata.get("contentEncoding", "identity"),
        "X-Goog-Stored-Content-Length": str(found.size),
    }
    for key, header in (
        ("contentEncoding", "Content-Encoding"),
        ("contentDisposition", "Content-Disposition"),
        ("cacheControl", "Cache-Control"),
    ):
        if found.metadata.get(key):
            headers[header] = found.metadata[key]
    return headers


def _parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The bytes [start, end) that a Range header asks for; None for the whole object, as for a malformed one."""
    unit, _, span = (header or "").partition("=")
    first, dash, last = span.strip().partition("-")
    if unit.strip() != "bytes" or not dash or not (first + last).isdigit():
        return None
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size
