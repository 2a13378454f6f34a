"""Requests as Google's own clients and rclone send them, where they differ from the Python library's."""

from __future__ import annotations

import httpx2
from google.cloud import storage as gcs

UPLOAD = "/upload/storage/v1/b/bucket/o"
OBJECTS = "/storage/v1/b/bucket/o"


def test_rclone_is_told_that_more_is_to_come_with_200_where_it_asks_for_that(http: httpx2.Client) -> None:
    session = http.post(f"{UPLOAD}?uploadType=resumable&name=part").headers["Location"]
    headers = {"Content-Range": "bytes 0-262143/262150", "X-GUploader-No-308": "yes"}
    first = http.put(session, content=bytes(256 << 10), headers=headers)
    assert (first.status_code, first.headers["X-HTTP-Status-Code-Override"]) == (200, "308")
    assert first.headers["Range"] == "bytes=0-262143"
    asked = http.put(session, headers={"Content-Range": "bytes */262150"})
    assert asked.status_code == 308, "who does not ask for 200 is told 308"
    last = http.put(session, content=b"1234567", headers={**headers, "Content-Range": "bytes 262144-262149/262150"})
    assert last.status_code == 400, "a wrong length is still refused"
    last = http.put(session, content=b"123456", headers={**headers, "Content-Range": "bytes 262144-262149/262150"})
    assert (last.status_code, last.json()["size"]) == (200, "262150")
    assert "X-HTTP-Status-Code-Override" not in last.headers


def test_a_rewrite_with_null_for_a_body_copies_as_with_none(bucket: gcs.Bucket, http: httpx2.Client) -> None:
    bucket.blob("part").upload_from_string(b"x", content_type="text/plain")
    answer = http.post(
        f"{OBJECTS}/part/rewriteTo/b/bucket/o/copy", content=b"null\n", headers={"Content-Type": "application/json"}
    )
    assert answer.json()["resource"]["contentType"] == "text/plain"


def test_gsutils_boundary_in_single_quotes_is_understood(http: httpx2.Client) -> None:
    body = (
        b"--===7330845974216740156==\nContent-Type: application/json\nMIME-Version: 1.0\n\n"
        b'{"name": "part"}\n--===7330845974216740156==\nContent-Type: text/plain\nMIME-Version: 1.0\n'
        b"Content-Transfer-Encoding: binary\n\nweights\n--===7330845974216740156==--"
    )
    kind = "multipart/related; boundary='===7330845974216740156=='"
    answer = http.post(f"{UPLOAD}?uploadType=multipart", content=body, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json().get("size")) == (200, "7"), answer.text
    assert http.get(f"{OBJECTS}/part?alt=media").content == b"weights"


def test_compose_keeps_its_first_parts_type_where_the_client_names_none(
    bucket: gcs.Bucket, http: httpx2.Client
) -> None:
    bucket.blob("part").upload_from_string(b"x", content_type="text/plain")
    for destination in ({}, {"contentType": None}):
        asked = {"sourceObjects": [{"name": "part"}], "destination": destination}
        assert http.post(f"{OBJECTS}/whole/compose", json=asked).json()["contentType"] == "text/plain"


def test_a_buckets_labels_merge_when_they_are_patched(http: httpx2.Client) -> None:
    for labels in ({"run": "a", "team": "b"}, {"run": None, "step": "1"}):
        answer = http.patch("/storage/v1/b/bucket", json={"labels": labels})
    assert answer.json()["labels"] == {"team": "b", "step": "1"}
