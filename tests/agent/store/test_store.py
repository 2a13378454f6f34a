"""What every store promises, asked of each of them."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from crc32c import crc32c

from agent.store import (
    AlreadyExists,
    Corrupt,
    NotFound,
    Store,
    StoredObject,
    StoreError,
    Unavailable,
    open_store,
)
from tests.agent.store.conftest import Place

_LARGE = bytes(range(256)) * (20 << 12)  # 20 MiB: several chunks on every path


@pytest.mark.parametrize("data", [b"", b"x", _LARGE], ids=["empty", "small", "large"])
def test_what_was_created_is_read_back(store: Store, data: bytes) -> None:
    before = time.time()
    made = store.create("a/part-0", data, timeout=10)
    assert (made.name, made.size, made.crc32c) == ("a/part-0", len(data), crc32c(data))
    assert abs(made.updated - before) < 3600
    assert store.read("a/part-0", timeout=10) == data
    into = bytearray(len(data))
    assert store.read_into("a/part-0", memoryview(into), timeout=10) == crc32c(data)
    assert into == data


@pytest.mark.parametrize(
    "data",
    [b"[" * 300_000, b'{"error": {"errors": [{"reason": "userRateLimitExceeded"}], "message": "not now"}}'],
    ids=["deep", "an error's"],
)
def test_what_is_stored_is_never_read_as_the_servers_own_words(store: Store, data: bytes) -> None:
    store.create("part", data, timeout=5)
    assert store.read("part", timeout=3) == data


def test_any_contiguous_memory_can_be_sent_and_filled(store: Store) -> None:
    arena = bytearray(b"0123456789abcdef")
    store.create("part", memoryview(arena)[4:12].cast("I"), timeout=5)
    assert store.read("part", timeout=5) == b"456789ab"
    store.read_into("part", memoryview(arena)[8:].cast("I"), timeout=5)
    assert arena == b"01234567456789ab"


def test_a_part_of_an_object_is_read_alone_and_never_shorter(store: Store) -> None:
    store.create("shard", b"0123456789", timeout=5)
    assert store.read_range("shard", 3, 4, timeout=5) == b"3456"
    assert store.read_range("shard", 9, 1, timeout=5) == b"9" and store.read_range("shard", 9, 0, timeout=5) == b""
    for start, size in ((8, 4), (20, 1)):
        with pytest.raises(Corrupt, match=f"no {size} bytes from {start} on"):
            store.read_range("shard", start, size, timeout=5)
    with pytest.raises(NotFound):
        store.read_range("none", 0, 1, timeout=5)


def test_an_existing_object_is_never_overwritten_by_create(store: Store) -> None:
    store.create("name", b"first", timeout=5)
    with pytest.raises(AlreadyExists, match="choose another name"):
        store.create("name", b"other", timeout=5)
    assert store.read("name", timeout=5) == b"first"


def test_a_second_try_of_the_same_upload_succeeds_and_changes_nothing(store: Store) -> None:
    first = store.create("name", b"same", timeout=5)
    assert store.create("name", b"same", timeout=5) == first


def test_of_creators_at_the_same_time_exactly_one_wins(store: Store) -> None:
    start = threading.Barrier(8)

    def create(number: int) -> StoredObject | None:
        start.wait(timeout=10)
        try:
            return store.create("contested", b"creator %d" % number, timeout=10)
        except AlreadyExists:
            return None

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(create, range(8)))
    (winner,) = [number for number, each in enumerate(made) if each]
    assert store.read("contested", timeout=5) == b"creator %d" % winner


def test_replace_overwrites_and_needs_nothing_to_overwrite(store: Store) -> None:
    first = store.replace("status", b"one", timeout=5)
    second = store.replace("status", b"twofold", timeout=5)
    assert second.generation > first.generation
    assert store.read("status", timeout=5) == b"twofold"
    assert store.list(timeout=5) == [second]


def test_a_flipped_byte_is_found_out(place: Place) -> None:
    place.store.create("part", b"weights" * 1000, timeout=5)
    place.flip_byte("part")
    with pytest.raises(Corrupt, match="Use an older checkpoint"):
        place.store.read("part", timeout=5)
    with pytest.raises(Corrupt, match="Use an older checkpoint"):
        place.store.read_into("part", memoryview(bytearray(7000)), timeout=5)


def test_a_truncated_object_is_found_out(place: Place) -> None:
    place.store.create("part", b"weights" * 1000, timeout=5)
    place.truncate("part", 6999)
    with pytest.raises(Corrupt):
        place.store.read_into("part", memoryview(bytearray(7000)), timeout=5)


@pytest.mark.parametrize("size", [0, 6, 8])
def test_an_object_of_another_size_than_expected_is_refused(store: Store, size: int) -> None:
    store.create("part", b"weights", timeout=5)
    with pytest.raises(Corrupt, match=f"has 7 bytes where {size} were expected"):
        store.read_into("part", memoryview(bytearray(size)), timeout=5)


def test_what_is_missing_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        store.read("nothing", timeout=5)
    with pytest.raises(NotFound, match="does not exist"):
        store.read_into("a/nothing", memoryview(bytearray(1)), timeout=5)
    with pytest.raises(NotFound, match="does not exist"):
        store.copy("nothing", "target", timeout=5)
    assert store.list("nothing", timeout=5) == []


def test_listing_gives_what_has_the_prefix_in_order(store: Store) -> None:
    made = {name: store.create(name, name.encode(), timeout=5) for name in ("b/2", "b/1", "b/1.x/3", "ba", "c")}
    assert store.list(timeout=5) == [made[name] for name in sorted(made)]
    assert store.list("b/", timeout=5) == [made["b/1"], made["b/1.x/3"], made["b/2"]]
    assert store.list("b/1", timeout=5) == [made["b/1"], made["b/1.x/3"]]
    assert [each.name for each in store.list("b", timeout=5)] == ["b/1", "b/1.x/3", "b/2", "ba"]


def test_a_listing_with_a_limit_gives_the_first_by_name(store: Store) -> None:
    made = {name: store.create(name, b"x", timeout=5) for name in ("b/2", "b/1", "b/1.x/3", "ba", "c")}
    assert store.list("b", timeout=5, limit=2) == [made["b/1"], made["b/1.x/3"]]
    assert store.list("b/", timeout=5, limit=9) == [made["b/1"], made["b/1.x/3"], made["b/2"]]
    assert store.list("d", timeout=5, limit=1) == []


def test_folders_are_those_directly_below_that_hold_something(store: Store) -> None:
    for name in ("rolling/7-1/manifest.json", "rolling/7-1/rank-0/part", "rolling/10-1/part", "rolling/note", "done"):
        store.create(name, b"x", timeout=5)
    assert store.folders(timeout=5) == ["rolling/"]
    assert store.folders("rolling/", timeout=5) == ["rolling/10-1/", "rolling/7-1/"]
    assert store.folders("milestones/", timeout=5) == []
    assert store.folders("done/", timeout=5) == []
    store.delete("rolling/10-1/part", timeout=5)
    assert store.folders("rolling/", timeout=5) == ["rolling/7-1/"]


def test_many_are_deleted_at_once_and_missing_ones_are_fine(store: Store) -> None:
    names = [f"räk/part-{number:03}?" for number in range(130)]
    for name in names:
        store.create(name, b"", timeout=20)
    store.create("other", b"x", timeout=5)
    assert store.delete_many([*names, "missing", *names[:3]], timeout=20) == {}
    assert [each.name for each in store.list(timeout=5)] == ["other"]
    assert store.delete_many([], timeout=5) == {}


def test_names_may_hold_anything_but_empty_parts_and_dots(store: Store) -> None:
    odd = "räk smörgås/100%/a?b#c&d=e+f/.hidden"
    store.create(odd, b"x", timeout=5)
    assert store.read(odd, timeout=5) == b"x"
    assert [each.name for each in store.list(timeout=5)] == [odd]
    for bad in ("", "/a", "a/", "a//b", "../a", "a/./b", "a\nb"):
        with pytest.raises(StoreError, match="not an object name"):
            store.create(bad, b"x", timeout=5)


def test_a_deleted_object_is_gone_and_its_name_free(store: Store) -> None:
    store.create("part", b"old", timeout=5)
    store.delete("part", timeout=5)
    store.delete("part", timeout=5)
    assert store.list(timeout=5) == []
    store.create("part", b"new", timeout=5)
    assert store.read("part", timeout=5) == b"new"


def test_a_milestone_outlives_what_it_was_copied_from(store: Store) -> None:
    store.create("rolling/part", b"weights", timeout=5)
    copied = store.copy("rolling/part", "milestones/part", timeout=5)
    assert (copied.name, copied.size, copied.crc32c) == ("milestones/part", 7, crc32c(b"weights"))
    store.delete("rolling/part", timeout=5)
    assert store.read("milestones/part", timeout=5) == b"weights"


def test_a_milestone_is_never_overwritten_by_a_copy(store: Store) -> None:
    store.create("one", b"one", timeout=5)
    store.create("two", b"two", timeout=5)
    first = store.copy("one", "milestone", timeout=5)
    assert store.copy("one", "milestone", timeout=5) == first, "a second try of the same copy is fine"
    with pytest.raises(AlreadyExists, match="choose another name"):
        store.copy("two", "milestone", timeout=5)
    assert store.read("milestone", timeout=5) == b"one"


def test_a_store_that_can_be_used_passes_its_check(store: Store) -> None:
    store.check(timeout=10)
    store.warm(4, timeout=10)
    store.create("part", b"x", timeout=5)
    store.check(timeout=10)


def test_a_call_without_time_left_is_unavailable(store: Store) -> None:
    store.create("part", b"x", timeout=5)
    with pytest.raises(Unavailable):
        store.create("other", b"x", timeout=-1)
    with pytest.raises(Unavailable):
        store.read("part", timeout=-1)
    assert {name: type(error) for name, error in store.delete_many(["part"], timeout=-1).items()} == {
        "part": Unavailable
    }


@pytest.mark.parametrize("url", ["s3://bucket/x", "file://x/y", "gs://", "/tmp/x", ""])
def test_a_url_that_names_no_store_is_refused_with_what_would(url: str) -> None:
    with pytest.raises(StoreError, match="use "):
        open_store(url)
