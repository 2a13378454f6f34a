from __future__ import annotations

from typing import Any

import pytest

from infra.local.storage.control import StorageControl


@pytest.fixture
def files(storage: StorageControl, monkeypatch: pytest.MonkeyPatch) -> Any:
    """gcsfs on the server; without this setting it looks for zonal buckets over gRPC for 40 s."""
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import gcsfs

    return gcsfs.GCSFileSystem(
        endpoint_url=storage.url, token="anon", project="local", skip_instance_cache=True, use_listings_cache=False
    )


def test_gcsfs_writes_reads_and_lists(files: Any) -> None:
    files.pipe("bucket/dir/small", b"small")
    files.pipe("bucket/dir/other", b"other")
    assert files.cat("bucket/dir/small") == b"small"
    assert files.cat_file("bucket/dir/small", start=1, end=3) == b"ma"
    assert sorted(files.ls("bucket/dir")) == ["bucket/dir/other", "bucket/dir/small"]
    assert files.find("bucket") == ["bucket/dir/other", "bucket/dir/small"]
    assert files.info("bucket/dir")["type"] == "directory"
    assert not files.exists("bucket/dir/missing")
    with pytest.raises(FileNotFoundError):
        files.cat("bucket/dir/missing")


def test_gcsfs_sends_a_large_file_in_resumable_chunks(files: Any, storage: StorageControl) -> None:
    data = bytes(range(256)) * 5000
    with files.open("bucket/large", "wb", block_size=256 * 1024) as file:
        for start in range(0, len(data), 100_000):
            file.write(data[start : start + 100_000])
    with files.open("bucket/large", "rb") as file:
        file.seek(1000)
        assert file.read(2000) == data[1000:3000]
    assert files.cat("bucket/large") == data
    assert 308 in {seen.status for seen in storage.requests()}


def test_gcsfs_creates_only_what_is_not_there(files: Any) -> None:
    files.pipe("bucket/part", b"one")
    with pytest.raises(FileExistsError):
        files.pipe("bucket/part", b"two", mode="create")
    assert files.cat("bucket/part") == b"one"


def test_gcsfs_copies_moves_joins_and_removes(files: Any) -> None:
    files.pipe("bucket/a", b"a")
    files.cp("bucket/a", "bucket/b")
    files.mv("bucket/b", "bucket/c")
    files.merge("bucket/joined", ["bucket/a", "bucket/c"])
    assert files.cat("bucket/joined") == b"aa"
    files.setxattrs("bucket/joined", step="1")
    assert files.getxattr("bucket/joined", "step") == "1"
    files.rm(["bucket/a", "bucket/c", "bucket/joined"])
    assert files.find("bucket") == []


def test_gcsfs_makes_and_removes_buckets(files: Any) -> None:
    files.mkdir("another")
    assert "another/" in files.ls("")
    files.rmdir("another")
    assert "another/" not in files.ls("")
