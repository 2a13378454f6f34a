"""Roads that Google's other clients take: the XML API's reads, policies; what is not played is said, never 404."""

from __future__ import annotations

import gzip

import httpx2
import pytest
from google.api_core.exceptions import Conflict, PreconditionFailed
from google.cloud import storage as gcs

from agent.store import open_store
from infra.local.storage.control import StorageControl
from infra.local.storage.iam import Rule

_STATE = b'{"version": 4}'


def test_an_object_is_read_as_googles_go_client_and_terraforms_state_read_it(
    bucket: gcs.Bucket, http: httpx2.Client
) -> None:
    blob = bucket.blob("terraform/state/default.tfstate")
    blob.upload_from_string(_STATE, content_type="application/json")
    path = "/bucket/terraform/state/default.tfstate"
    whole = http.get(path)
    assert (whole.status_code, whole.content) == (200, _STATE)
    assert whole.headers["X-Goog-Generation"] == str(blob.generation)
    assert whole.headers.get_list("X-Goog-Hash", split_commas=False)[0] == f"crc32c={blob.crc32c}", (
        "Go takes one a line"
    )
    head = http.head(path)
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(len(_STATE)))
    assert http.get("/bucket/terraform%2Fstate%2Fdefault.tfstate").content == _STATE
    part = http.get(path, headers={"Range": "bytes=2-8"})
    assert (part.status_code, part.content) == (206, _STATE[2:9])
    assert part.headers["Content-Range"] == f"bytes 2-8/{len(_STATE)}"


def test_the_xml_roads_generations_and_conditions_are_kept(bucket: gcs.Bucket, http: httpx2.Client) -> None:
    blob = bucket.blob("one")
    blob.upload_from_string(b"x")
    old = blob.generation
    blob.upload_from_string(b"y")
    asked = {
        (f"generation={blob.generation}", "", ""): 200,
        (f"generation={old}", "", ""): 404,
        ("", "x-goog-if-generation-match", str(blob.generation)): 200,
        ("", "x-goog-if-generation-match", str(old)): 412,
        ("", "x-goog-if-generation-not-match", str(blob.generation)): 304,
        ("", "x-goog-if-metageneration-match", "7"): 412,
        ("", "Range", "bytes=9-"): 416,
        ("tagging", "", ""): 400,
    }
    for (query, header, value), status in asked.items():
        assert http.get(f"/bucket/one?{query}", headers={header: value} if header else {}).status_code == status


def test_what_is_missing_or_forbidden_is_said_in_the_xml_apis_words(
    storage: StorageControl, bucket: gcs.Bucket, http: httpx2.Client
) -> None:
    assert "<Code>NoSuchKey</Code>" in http.get("/bucket/a&b").text
    assert "<Code>NoSuchBucket</Code>" in http.get("/nowhere/one").text
    storage.iam([Rule(identity="somebody", actions=frozenset({"get"}))])
    assert "<Code>AuthenticationRequired</Code>" in http.get("/bucket/one").text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/storage/v1/b/bucket/o/one/acl"),
        ("GET", "/storage/v1/b/bucket/notificationConfigs"),
        ("GET", "/storage/v2/b/bucket/o/one"),
        ("GET", "/storage/v1/b/bucket/o/unescaped/name"),
        ("POST", "/storage/v1/b/bucket/o/one/restore"),
        ("POST", "/batch"),
        ("GET", "/bucket"),
        ("GET", "/bucket/?list-type=2"),
        ("PUT", "/bucket/one"),
        ("DELETE", "/bucket/one"),
        ("GET", "/"),
        ("GET", "/_local/nothing"),
        ("PROPFIND", "/bucket/one"),
    ],
)
def test_what_is_not_played_is_refused_in_words_never_by_404(http: httpx2.Client, method: str, path: str) -> None:
    answer = http.request(method, path)
    assert answer.status_code == (501 if method == "PROPFIND" else 400)
    assert method in answer.text


def test_a_clients_own_key_is_refused_and_not_passed_over(bucket: gcs.Bucket, http: httpx2.Client) -> None:
    answer = http.post(
        "/upload/storage/v1/b/bucket/o?uploadType=media&name=one",
        headers={"X-Goog-Encryption-Algorithm": "AES256"},
        content=b"x",
    )
    assert answer.status_code == 400
    assert not bucket.blob("one").exists()


def test_a_buckets_policy_is_kept_and_changed_only_by_who_has_read_it(bucket: gcs.Bucket, http: httpx2.Client) -> None:
    policy = bucket.get_iam_policy(requested_policy_version=3)
    policy.version = 3
    binding = {"role": "roles/storage.objectViewer", "members": {"user:ann@example.org"}}
    condition = {"title": "reads", "expression": 'resource.name.startsWith("projects/_/buckets/bucket/objects/a/")'}
    policy.bindings.append({**binding, "condition": condition})
    bucket.set_iam_policy(policy)
    assert bucket.get_iam_policy(requested_policy_version=3).bindings == [{**binding, "condition": condition}]
    with pytest.raises((Conflict, PreconditionFailed)):
        bucket.set_iam_policy(policy)
    assert http.get("/storage/v1/b/bucket/iam").status_code == 400, "conditions would be lost on who knows none"


def test_a_project_has_a_service_account_of_cloud_storages(bucket: gcs.Bucket) -> None:
    assert bucket.client.get_service_account_email("local").endswith("@gs-project-accounts.iam.gserviceaccount.com")


def test_what_is_stored_compressed_comes_as_it_is_to_who_takes_it_so_and_else_decompressed(
    storage: StorageControl, bucket: gcs.Bucket, http: httpx2.Client
) -> None:
    plain = b"weights " * 100
    stored = gzip.compress(plain)
    blob = bucket.blob("one")
    blob.content_encoding = "gzip"
    blob.upload_from_string(stored)
    for path in ("/storage/v1/b/bucket/o/one?alt=media", "/bucket/one"):
        with http.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as answer:
            assert b"".join(answer.iter_raw()) == stored
        with http.stream("GET", path, headers={"Accept-Encoding": "identity"}) as answer:
            assert (b"".join(answer.iter_raw()), answer.headers.get("Content-Encoding")) == (plain, None)
            assert answer.headers["X-Goog-Stored-Content-Encoding"] == "gzip"
    assert blob.download_as_bytes() == plain


def test_our_store_reads_what_is_stored_compressed_as_it_is_stored(
    storage: StorageControl, bucket: gcs.Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GCE_METADATA_HOST", raising=False)
    stored = gzip.compress(b"weights " * 1000)
    blob = bucket.blob("run/one")
    blob.content_encoding = "gzip"
    blob.upload_from_string(stored)
    store = open_store("gs://bucket/run")
    into = bytearray(len(stored))
    store.read_into("one", memoryview(into), timeout=5)
    assert into == stored == store.read("one", timeout=5)
