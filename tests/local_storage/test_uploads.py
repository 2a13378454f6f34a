from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
from http.client import HTTPConnection

import crc32c
import httpx2
import pytest
from google.api_core.exceptions import BadRequest, PreconditionFailed
from google.cloud import storage as gcs

from infra.local.storage.control import StorageControl

KIB = 1024
UPLOAD = "/upload/storage/v1/b/bucket/o"


def crc_of(data: bytes) -> str:
    return base64.b64encode(crc32c.crc32c(data).to_bytes(4, "big")).decode()


def begin_resumable(http: httpx2.Client, name: str, query: str = "") -> str:
    answer = http.post(f"{UPLOAD}?uploadType=resumable&name={name}{query}")
    assert answer.status_code == 200, answer.text
    return answer.headers["Location"]


def put_chunk(
    http: httpx2.Client, session: str, data: bytes, span: str, headers: dict[str, str] | None = None
) -> httpx2.Response:
    return http.put(session, content=data, headers={"Content-Range": f"bytes {span}", **(headers or {})})


def test_a_second_create_only_upload_is_refused_and_changes_nothing(bucket: gcs.Bucket) -> None:
    first = bucket.blob("part")
    first.upload_from_string(b"one", if_generation_match=0)
    with pytest.raises(PreconditionFailed):
        bucket.blob("part").upload_from_string(b"two", if_generation_match=0)
    kept = bucket.get_blob("part")
    assert (kept.generation, kept.download_as_bytes()) == (first.generation, b"one")


def test_an_overwrite_makes_a_higher_generation_and_must_match_the_one_it_names(bucket: gcs.Bucket) -> None:
    blob = bucket.blob("part")
    blob.upload_from_string(b"one")
    first = blob.generation
    blob.upload_from_string(b"two", if_generation_match=first)
    assert blob.generation > first and blob.metageneration == 1
    with pytest.raises(PreconditionFailed):
        blob.upload_from_string(b"three", if_generation_match=first)
    with pytest.raises(PreconditionFailed):
        blob.upload_from_string(b"three", if_generation_not_match=blob.generation)


def test_media_multipart_and_resumable_uploads_store_the_same_object(bucket: gcs.Bucket, http: httpx2.Client) -> None:
    data = bytes(range(256)) * 3000  # Not a multiple of the blocks it is kept in.
    media = http.post(f"{UPLOAD}?uploadType=media&name=media", content=data).json()
    bucket.blob("multipart").upload_from_string(data)
    chunked = bucket.blob("resumable", chunk_size=256 * KIB)
    chunked.upload_from_file(io.BytesIO(data))
    assert media["crc32c"] == crc_of(data)
    assert media["md5Hash"] == base64.b64encode(hashlib.md5(data).digest()).decode()
    for name in ("media", "multipart", "resumable"):
        blob = bucket.get_blob(name)
        assert (blob.size, blob.crc32c, blob.md5_hash) == (len(data), media["crc32c"], media["md5Hash"])
        assert blob.download_as_bytes() == data


def test_an_empty_object_can_be_stored_and_read(bucket: gcs.Bucket) -> None:
    bucket.blob("empty").upload_from_string(b"")
    assert (bucket.get_blob("empty").size, bucket.blob("empty").download_as_bytes()) == (0, b"")


def test_curl_uploads_a_stream_of_unknown_length_and_reads_it_back(storage: StorageControl) -> None:
    data = b"streamed " * 50_000
    url = f"{storage.url}{UPLOAD}?uploadType=media&name=a%2Fb"
    put = ["curl", "-sS", "--fail", "-X", "POST", "-H", "Transfer-Encoding: chunked", "--data-binary", "@-", url]
    subprocess.run(put, input=data, check=True, timeout=10, stdout=subprocess.DEVNULL)
    get = ["curl", "-sS", "--fail", f"{storage.url}/storage/v1/b/bucket/o/a%2Fb?alt=media"]
    assert subprocess.run(get, check=True, timeout=10, capture_output=True).stdout == data


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Goog-Hash": f"crc32c={crc_of(b'other')}"},
        {"X-Goog-Hash": f"md5={base64.b64encode(hashlib.md5(b'other').digest()).decode()}"},
        {"Content-MD5": base64.b64encode(hashlib.md5(b"other").digest()).decode()},
    ],
    ids=["crc32c", "md5", "content-md5"],
)
def test_bytes_that_differ_from_the_checksum_sent_with_them_are_refused(
    http: httpx2.Client, headers: dict[str, str]
) -> None:
    answer = http.post(f"{UPLOAD}?uploadType=media&name=part", content=b"data", headers=headers)
    assert answer.status_code == 400 and "doesn't match" in answer.json()["error"]["message"]
    assert http.get("/storage/v1/b/bucket/o/part").status_code == 404


@pytest.mark.parametrize("chunk_size", [None, 256 * KIB], ids=["multipart", "resumable"])
def test_a_checksum_in_the_metadata_is_verified_too(bucket: gcs.Bucket, chunk_size: int | None) -> None:
    blob = bucket.blob("part", chunk_size=chunk_size)
    blob.crc32c = crc_of(b"other")
    with pytest.raises(BadRequest, match="doesn't match"):
        blob.upload_from_file(io.BytesIO(b"data" * 100_000), checksum=None)
    assert not bucket.blob("part").exists()


def test_the_final_hash_of_a_resumable_upload_is_verified(http: httpx2.Client) -> None:
    session = begin_resumable(http, "part")
    hashes = {"X-Goog-Hash": f"crc32c={crc_of(b'other')}"}
    assert put_chunk(http, session, b"data", "0-3/4", hashes).status_code == 400
    assert http.get("/storage/v1/b/bucket/o/part").status_code == 404


def test_a_resumable_upload_says_how_far_it_is_and_ends_once(http: httpx2.Client) -> None:
    data = bytes(512 * KIB) + b"end"
    session = begin_resumable(http, "part")
    assert "Range" not in put_chunk(http, session, b"", "*/*").headers
    first = put_chunk(http, session, data[: 256 * KIB], f"0-{256 * KIB - 1}/*")
    assert (first.status_code, first.headers["Range"]) == (308, f"bytes=0-{256 * KIB - 1}")
    status = put_chunk(http, session, b"", f"*/{len(data)}")
    assert (status.status_code, status.headers["Range"]) == (308, f"bytes=0-{256 * KIB - 1}")
    # Bytes that were sent already are ignored.
    done = put_chunk(http, session, data, f"0-{len(data) - 1}/{len(data)}")
    assert (done.status_code, done.json()["crc32c"]) == (200, crc_of(data))
    again = put_chunk(http, session, b"", "*/*")
    assert (again.status_code, again.json()["generation"]) == (200, done.json()["generation"])


def test_a_resumable_chunk_is_kept_in_whole_granules_only(http: httpx2.Client) -> None:
    session = begin_resumable(http, "part")
    answer = put_chunk(http, session, bytes(300 * KIB), f"0-{300 * KIB - 1}/*")
    assert (answer.status_code, answer.headers["Range"]) == (308, f"bytes=0-{256 * KIB - 1}")


def test_a_resumable_upload_of_unknown_size_can_be_ended_by_naming_its_size(http: httpx2.Client) -> None:
    session = begin_resumable(http, "part")
    put_chunk(http, session, bytes(256 * KIB), f"0-{256 * KIB - 1}/*")
    done = put_chunk(http, session, b"", f"*/{256 * KIB}")
    assert (done.status_code, done.json()["size"]) == (200, str(256 * KIB))


def test_a_gap_in_a_resumable_upload_is_refused(http: httpx2.Client) -> None:
    session = begin_resumable(http, "part")
    answer = put_chunk(http, session, b"late", "262144-262147/262148")
    assert answer.status_code == 503 and "exceeds already uploaded size" in answer.text


def test_a_cancelled_resumable_upload_is_gone(http: httpx2.Client) -> None:
    session = begin_resumable(http, "part")
    assert http.delete(session).status_code == 499
    assert put_chunk(http, session, b"data", "0-3/4").status_code == 499


def test_a_create_only_resumable_upload_is_refused_at_its_start_and_at_its_end(http: httpx2.Client) -> None:
    session = begin_resumable(http, "part", "&ifGenerationMatch=0")
    http.post(f"{UPLOAD}?uploadType=media&name=part", content=b"first")
    late = http.post(f"{UPLOAD}?uploadType=resumable&name=part&ifGenerationMatch=0")
    assert late.status_code == 412
    assert put_chunk(http, session, b"data", "0-3/4").status_code == 412
    assert http.get("/storage/v1/b/bucket/o/part?alt=media").content == b"first"


def test_a_resumable_upload_goes_on_where_a_reset_cut_it_off(storage: StorageControl, http: httpx2.Client) -> None:
    data = bytes(range(256)) * (4 * KIB)
    session = begin_resumable(http, "part")
    storage.fault("reset", method="PUT", name="^part$", after_bytes=600_000)
    with pytest.raises(httpx2.TransportError):
        put_chunk(http, session, data, f"0-{len(data) - 1}/{len(data)}")
    status = put_chunk(http, session, b"", f"*/{len(data)}")
    kept = int(status.headers["Range"].removeprefix("bytes=0-")) + 1
    assert kept == 512 * KIB
    done = put_chunk(http, session, data[kept:], f"{kept}-{len(data) - 1}/{len(data)}")
    assert (done.status_code, done.json()["crc32c"]) == (200, crc_of(data))


def test_googles_client_resumes_an_upload_through_a_reset(storage: StorageControl, bucket: gcs.Bucket) -> None:
    data = bytes(range(256)) * (4 * KIB)
    storage.fault("reset", method="PUT", after_bytes=300_000)
    bucket.blob("part", chunk_size=512 * KIB).upload_from_file(io.BytesIO(data), if_generation_match=0)
    assert bucket.blob("part").download_as_bytes() == data
    assert [seen.fault for seen in storage.requests()].count("reset") == 1


def test_a_retry_of_an_upload_whose_answer_was_lost_finds_its_own_object(
    storage: StorageControl, bucket: gcs.Bucket
) -> None:
    storage.fault("status", action="create", after_done=True)
    with pytest.raises(PreconditionFailed):
        bucket.blob("part").upload_from_string(b"mine", if_generation_match=0)
    assert bucket.get_blob("part").crc32c == crc_of(b"mine")
    assert [seen.status for seen in storage.requests() if seen.action == "create"] == [503, 412]


def test_a_refused_upload_is_explained_and_its_connection_stays_usable(storage: StorageControl) -> None:
    connection = HTTPConnection(storage.url.removeprefix("http://"), timeout=5)
    connection.request("POST", "/upload/storage/v1/b/nowhere/o?uploadType=media&name=part", body=bytes(3 << 20))
    connection.auto_open = 0  # No new connection for the next request.
    error = json.loads(connection.getresponse().read())["error"]
    assert (error["code"], error["errors"][0]["reason"]) == (404, "notFound")
    connection.request("GET", "/storage/v1/b/bucket")
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.parametrize("name", ["", "a" * 1025, "%0A", "."])
def test_a_name_that_cloud_storage_does_not_allow_is_refused(http: httpx2.Client, name: str) -> None:
    assert http.post(f"{UPLOAD}?uploadType=media&name={name}", content=b"").status_code == 400
