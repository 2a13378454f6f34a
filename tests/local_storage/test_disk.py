"""Buckets in a folder: there again after the server's end, whole or absent, and read by the agent's own store."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.store import open_store
from infra.local.storage.errors import ApiError, Refused
from infra.local.storage.memory import Data
from infra.local.storage.objects import Bucket, ListQuery, Storage
from infra.local.storage.resources import Preconditions


def bucket_in(folder: Path, clock: Callable[[], float] = time.time) -> Bucket:
    return Storage(clock, folder=folder).create_bucket("bucket")


def put(bucket: Bucket, name: str, content: bytes, **metadata: str) -> int:
    return bucket.insert(name, Data.of(content), {"contentType": "application/octet-stream", **metadata}).generation


def contents(bucket: Bucket) -> dict[str, bytes]:
    return {each.name: bytes(each.data) for each in bucket.list(ListQuery()).items}


def test_a_bucket_is_there_again_and_its_generations_go_on(tmp_path: Path) -> None:
    bucket = bucket_in(tmp_path)
    put(bucket, "runs/a/part", b"old")
    put(bucket, "runs/a/part", b"new")
    put(bucket, "runs/a/gone", b"x")
    bucket.delete("runs/a/gone")
    put(bucket, "runs/empty", b"")
    last = put(bucket, "runs/zipped", b"zip", contentEncoding="gzip")
    bucket.amend("runs/zipped", {"metadata": {"by": "me"}}, Preconditions())

    again = bucket_in(tmp_path, lambda: 1.0)  # a clock that was set back
    assert contents(again) == {"runs/a/part": b"new", "runs/empty": b"", "runs/zipped": b"zip"}
    zipped = again.get("runs/zipped")
    assert zipped.metadata == {
        "contentType": "application/octet-stream", "contentEncoding": "gzip", "metadata": {"by": "me"},
    }  # fmt: skip
    assert zipped.generation == last < put(again, "runs/later", b"")
    left = [path.name for path in (tmp_path / "bucket/.objects").iterdir() if not path.name.endswith(".json")]
    assert len(left) == 4, "the bytes of what is gone are gone"


def test_the_agents_own_store_reads_the_folder(tmp_path: Path) -> None:
    bucket = bucket_in(tmp_path)
    generation = put(bucket, "runs/a/line/1.json", b"{}")
    store = open_store(f"file://{tmp_path}/bucket/runs/a")
    assert [(each.name, each.size) for each in store.list(timeout=5)] == [("line/1.json", 2)]
    assert store.list(timeout=5)[0].updated == pytest.approx(generation / 1e6)
    assert store.read("line/1.json", timeout=5) == b"{}"


def test_what_a_server_that_died_left_half_done_is_no_object_and_goes(tmp_path: Path) -> None:
    bucket = bucket_in(tmp_path)
    put(bucket, "a", b"whole")
    assert bucket.disk
    torn = bucket.disk.write("b", Data.of(b"written aside"))
    unnamed = torn.with_name(f"{1 << 80:024x}-5-00000000")
    unnamed.write_bytes(b"whole")
    foreign = torn.with_name("notes")
    foreign.touch()
    again = bucket_in(tmp_path)
    assert contents(again) == {"a": b"whole"}
    assert [torn.exists(), unnamed.exists(), foreign.exists()] == [False, False, True]


@pytest.mark.parametrize("name", ["a//b", "a/", "../a", ".objects/a", "a" * 256, "a/b"])
def test_a_name_that_no_file_can_have_is_refused_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    bucket = bucket_in(tmp_path)
    put(bucket, "a", b"a file")
    with pytest.raises(ApiError, match=r"can't hold|not a directory|file exists"):
        put(bucket, name, b"x")
    assert contents(bucket) == contents(bucket_in(tmp_path)) == {"a": b"a file"}
    with pytest.raises(Refused, match="no older versions"):
        bucket.patch_bucket({"versioning": {"enabled": True}}, Preconditions())
