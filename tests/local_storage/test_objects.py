from __future__ import annotations

import datetime

import httpx2
import pytest
from google.api_core.exceptions import BadRequest, NotFound, PreconditionFailed, RequestRangeNotSatisfiable
from google.cloud import storage as gcs
from google.cloud.exceptions import Conflict

from infra.local.storage.control import StorageControl

OBJECTS = "/storage/v1/b/bucket/o"


def put(bucket: gcs.Bucket, name: str, data: bytes = b"0123456789") -> gcs.Blob:
    blob = bucket.blob(name)
    blob.upload_from_string(data)
    return blob


def test_ranges_give_the_bytes_they_name(bucket: gcs.Bucket, http: httpx2.Client) -> None:
    blob = put(bucket, "part")
    assert blob.download_as_bytes(start=2, end=4) == b"234"
    assert blob.download_as_bytes(start=7) == b"789"
    url = f"/download{OBJECTS}/part?alt=media"
    last = http.get(url, headers={"Range": "bytes=-3"})
    assert (last.status_code, last.content, last.headers["Content-Range"]) == (206, b"789", "bytes 7-9/10")
    past = http.get(url, headers={"Range": "bytes=8-100"})
    assert (past.status_code, past.content, past.headers["Content-Range"]) == (206, b"89", "bytes 8-9/10")
    with pytest.raises(RequestRangeNotSatisfiable):
        blob.download_as_bytes(start=10)


def test_a_download_carries_the_objects_checksums_and_generation(bucket: gcs.Bucket, http: httpx2.Client) -> None:
    blob = put(bucket, "part")
    for answer in (http.get(f"{OBJECTS}/part?alt=media"), http.head(f"{OBJECTS}/part?alt=media")):
        assert answer.headers["X-Goog-Hash"] == f"crc32c={blob.crc32c}, md5={blob.md5_hash}"
        assert answer.headers["X-Goog-Generation"] == str(blob.generation)
        assert answer.headers["Content-Length"] == "10"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("ifGenerationMatch={generation}", 200),
        ("ifGenerationMatch=1", 412),
        ("ifGenerationMatch=0", 412),
        ("ifGenerationNotMatch=1", 200),
        ("ifGenerationNotMatch={generation}", 304),
        ("ifMetagenerationMatch=1", 200),
        ("ifMetagenerationMatch=2", 412),
        ("ifMetagenerationNotMatch=1", 304),
        ("ifMetagenerationNotMatch=2", 200),
        ("generation={generation}", 200),
        ("generation=1", 404),
        ("generation=one", 400),
        ("ifGenerationMatch=one", 400),
    ],
)
@pytest.mark.parametrize("alt", ["json", "media"])
def test_reads_obey_their_preconditions(
    bucket: gcs.Bucket, http: httpx2.Client, alt: str, query: str, status: int
) -> None:
    generation = put(bucket, "part").generation
    answer = http.get(f"{OBJECTS}/part?alt={alt}&{query.format(generation=generation)}")
    assert answer.status_code == status


def test_deletes_obey_their_preconditions(bucket: gcs.Bucket) -> None:
    blob = put(bucket, "part")
    with pytest.raises(PreconditionFailed):
        blob.delete(if_generation_match=1)
    with pytest.raises(PreconditionFailed):
        blob.delete(if_metageneration_not_match=1)
    blob.delete(if_generation_match=blob.generation)
    with pytest.raises(NotFound):
        bucket.blob("part").delete()


def test_a_versioned_bucket_keeps_old_generations(storage: StorageControl, bucket: gcs.Bucket) -> None:
    storage.create_bucket("versioned", versioning=True)
    versioned = bucket.client.bucket("versioned")
    old = put(versioned, "part", b"old")
    new = put(versioned, "part", b"new")
    assert versioned.blob("part", generation=old.generation).download_as_bytes() == b"old"
    versioned.blob("part").delete()
    assert [blob.name for blob in versioned.list_blobs()] == []
    kept = [blob.generation for blob in versioned.list_blobs(versions=True)]
    assert kept == [old.generation, new.generation]
    versioned.blob("part", generation=old.generation).delete()
    assert [blob.generation for blob in versioned.list_blobs(versions=True)] == [new.generation]


def test_without_versioning_an_old_generation_is_gone(bucket: gcs.Bucket) -> None:
    old = put(bucket, "part", b"old").generation
    put(bucket, "part", b"new")
    with pytest.raises(NotFound):
        bucket.blob("part", generation=old).download_as_bytes()


def test_a_patch_changes_what_it_names_and_counts_the_metageneration(bucket: gcs.Bucket) -> None:
    blob = put(bucket, "part")
    blob.metadata = {"run": "a", "step": "1"}
    blob.content_type = "text/plain"
    blob.patch()
    blob.metadata = {"run": None, "world": "2"}
    blob.patch(if_metageneration_match=2)
    fresh = bucket.get_blob("part")
    assert fresh.metadata == {"step": "1", "world": "2"}
    assert (fresh.metageneration, fresh.generation, fresh.content_type) == (3, blob.generation, "text/plain")
    with pytest.raises(PreconditionFailed):
        blob.patch(if_metageneration_match=2)


def test_an_update_replaces_all_that_can_be_set(bucket: gcs.Bucket, http: httpx2.Client) -> None:
    blob = put(bucket, "part")
    blob.metadata = {"run": "a"}
    blob.cache_control = "no-cache"
    blob.patch()
    answer = http.put(f"{OBJECTS}/part", json={"contentType": "text/html"}).json()
    assert answer["contentType"] == "text/html"
    assert "metadata" not in answer and "cacheControl" not in answer


def test_custom_time_can_only_move_on(bucket: gcs.Bucket, http: httpx2.Client) -> None:
    blob = put(bucket, "part")
    now = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    blob.custom_time = now
    blob.patch()
    blob.custom_time = now + datetime.timedelta(days=1)
    blob.patch()
    blob.custom_time = now
    with pytest.raises(BadRequest, match="moved back"):
        blob.patch()
    assert "removed" in http.patch(f"{OBJECTS}/part", json={"customTime": None}).text
    assert "removed" in http.put(f"{OBJECTS}/part", json={}).text
    assert bucket.get_blob("part").custom_time == now + datetime.timedelta(days=1)


def test_a_rewrite_copies_bytes_and_metadata_under_the_targets_preconditions(bucket: gcs.Bucket) -> None:
    source = put(bucket, "rolling/part")
    source.metadata = {"step": "7"}
    source.patch()
    target = bucket.blob("milestones/part")
    assert target.rewrite(source, if_generation_match=0) == (None, 10, 10)
    copy = bucket.get_blob("milestones/part")
    assert (copy.crc32c, copy.metadata, copy.download_as_bytes()) == (source.crc32c, {"step": "7"}, b"0123456789")
    with pytest.raises(PreconditionFailed):
        bucket.blob("milestones/part").rewrite(source, if_generation_match=0)
    with pytest.raises(PreconditionFailed):
        bucket.blob("other").rewrite(source, if_source_generation_match=1)
    with pytest.raises(NotFound):
        bucket.blob("other").rewrite(bucket.blob("missing"))


def test_a_long_rewrite_goes_on_with_its_token(bucket: gcs.Bucket, http: httpx2.Client) -> None:
    put(bucket, "part", bytes(3 << 20))
    url = f"{OBJECTS}/part/rewriteTo/b/bucket/o/copy?maxBytesRewrittenPerCall={1 << 20}"
    answers = [http.post(url).json()]
    while not answers[-1]["done"]:
        assert http.get(f"{OBJECTS}/copy").status_code == 404
        answers.append(http.post(f"{url}&rewriteToken={answers[-1]['rewriteToken']}").json())
    assert [int(answer["totalBytesRewritten"]) >> 20 for answer in answers] == [1, 2, 3]
    assert answers[-1]["resource"]["size"] == str(3 << 20)


def test_a_copy_stays_when_its_source_is_deleted(bucket: gcs.Bucket) -> None:
    data = bytes(range(256)) * 20_000
    source = put(bucket, "part", data)
    bucket.copy_blob(source, bucket, "copy", if_generation_match=0)
    source.delete()
    for round_ in range(4):  # New objects take the memory that the deleted one would have freed.
        put(bucket, f"new{round_}", bytes(len(data)))
    assert bucket.blob("copy").download_as_bytes() == data


def test_a_rename_moves_the_object(bucket: gcs.Bucket) -> None:
    put(bucket, "old")
    bucket.move_blob(bucket.blob("old"), "new")
    assert [blob.name for blob in bucket.list_blobs()] == ["new"]


def test_compose_joins_objects_in_order(bucket: gcs.Bucket) -> None:
    parts = [put(bucket, f"part{i}", bytes([i]) * 100_000) for i in range(3)]
    whole = bucket.blob("whole")
    whole.compose(parts, if_generation_match=0)
    assert whole.download_as_bytes() == b"".join(bytes([i]) * 100_000 for i in range(3))
    fresh = bucket.get_blob("whole")
    assert (fresh.component_count, fresh.md5_hash) == (3, None)
    with pytest.raises(PreconditionFailed):
        bucket.blob("whole").compose(parts, if_generation_match=0)
    with pytest.raises(PreconditionFailed):
        bucket.blob("other").compose(parts, if_source_generation_match=[1, 2, 3])
    with pytest.raises(BadRequest, match="1 to 32"):
        bucket.blob("other").compose(parts * 11)


@pytest.mark.parametrize(
    ("method", "path", "document"),
    [
        ("POST", f"{OBJECTS}/whole/compose", {"sourceObjects": [{}]}),
        ("PATCH", f"{OBJECTS}/part", {"metadata": "text"}),
        ("PATCH", f"{OBJECTS}/part", {"customTime": "yesterday"}),
        ("PATCH", f"{OBJECTS}/part", ["not", "an", "object"]),
        ("POST", "/storage/v1/b", {"name": "No Such Name"}),
        ("POST", "/upload/storage/v1/b/bucket/o?uploadType=other&name=x", {}),
        ("POST", "/upload/storage/v1/b/bucket/o?uploadType=multipart", {"name": "x"}),
    ],
)
def test_a_request_that_makes_no_sense_is_answered_with_400(
    bucket: gcs.Bucket, http: httpx2.Client, method: str, path: str, document: object
) -> None:
    put(bucket, "part")
    answer = http.request(method, path, json=document)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, 400)


def test_a_batch_does_its_operations_and_says_which_failed(bucket: gcs.Bucket) -> None:
    put(bucket, "a")
    put(bucket, "b")
    with pytest.raises(NotFound), bucket.client.batch():
        bucket.blob("a").delete()
        bucket.blob("missing").delete()
        bucket.blob("b").delete()
    assert list(bucket.list_blobs()) == []


def test_buckets_are_made_listed_changed_and_deleted_when_empty(bucket: gcs.Bucket) -> None:
    client = bucket.client
    made = client.create_bucket("another")
    with pytest.raises(Conflict):
        client.create_bucket("another")
    assert [found.name for found in client.list_buckets()] == ["another", "bucket"]
    made.versioning_enabled = True
    made.labels = {"run": "demo"}
    made.patch()
    fresh = client.get_bucket("another")
    assert (fresh.versioning_enabled, fresh.labels, fresh.metageneration) == (True, {"run": "demo"}, 2)
    put(bucket, "part")
    with pytest.raises(Conflict):
        bucket.delete()
    made.delete()
    assert client.lookup_bucket("another") is None
