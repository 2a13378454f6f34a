"""What gs:// makes of trouble: ridden out within the timeout, or an error that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.store import AlreadyExists, Corrupt, Forbidden, Held, NotFound, Store, StoreError, Unavailable, open_store
from infra.local.storage.faults import FaultKind
from infra.local.storage.iam import Rule
from tests.agent.store.conftest import BucketPlace

_DATA = bytes(range(256)) * (32 << 10)  # 8 MiB
_MIDDLE = 5 << 20


def _upload(store: Store) -> None:
    made = store.create("part", _DATA, timeout=20)
    assert store.list(timeout=5) == [made]


def _download(store: Store) -> None:
    into = bytearray(len(_DATA))
    store.read_into("part", memoryview(into), timeout=20)
    assert into == _DATA


Act = Callable[[Store], None]


@pytest.fixture(params=[("create", _upload), ("get", _download)], ids=["upload", "download"])
def transfer(request: pytest.FixtureRequest, bucket: BucketPlace) -> tuple[str, Act]:
    """The server's word for a transfer, and the transfer, ready to be done."""
    action, act = request.param
    if action == "get":
        bucket.store.create("part", _DATA, timeout=10)
    return action, act


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_spell_of_server_errors_is_ridden_out(bucket: BucketPlace, status: int) -> None:
    bucket.server.fault("status", action="create", status=status)
    bucket.store.create("part", b"x", timeout=20)
    assert bucket.server.pending_faults() == []
    assert bucket.store.read("part", timeout=5) == b"x"


def test_a_refusal_is_not_asked_again(bucket: BucketPlace) -> None:
    bucket.server.fault("status", action="create", status=400, count=2)
    with pytest.raises(StoreError, match="status 400") as raised:
        bucket.store.create("part", b"x", timeout=20)
    assert not isinstance(raised.value, Unavailable)
    assert [each.count for each in bucket.server.pending_faults()] == [1]


@pytest.mark.parametrize("kind", ["reset", "truncate"])
def test_a_connection_lost_amid_the_bytes_is_tried_again(
    bucket: BucketPlace, transfer: tuple[str, Act], kind: FaultKind
) -> None:
    action, act = transfer
    bucket.server.fault(kind, action=action, after_bytes=_MIDDLE)
    act(bucket.store)
    assert bucket.server.pending_faults() == []


@pytest.mark.parametrize("kind", ["reset", "status"])
def test_an_upload_whose_answer_was_lost_succeeds_as_the_one_object_it_made(
    bucket: BucketPlace, kind: FaultKind
) -> None:
    bucket.server.fault(kind, action="create", after_done=True)
    _upload(bucket.store)
    assert bucket.server.pending_faults() == []


def test_a_copy_whose_answer_was_lost_succeeds(bucket: BucketPlace) -> None:
    bucket.store.create("part", b"x", timeout=5)
    bucket.server.fault("status", name="milestone", action="create", after_done=True)
    assert bucket.store.copy("part", "milestone", timeout=10).size == 1


def test_bytes_damaged_on_their_way_are_sent_again(bucket: BucketPlace, transfer: tuple[str, Act]) -> None:
    action, act = transfer
    bucket.server.fault("flip", action=action, after_bytes=_MIDDLE)
    act(bucket.store)
    assert bucket.server.pending_faults() == []


def test_an_upload_that_always_arrives_damaged_is_corrupt_and_makes_no_object(bucket: BucketPlace) -> None:
    bucket.server.fault("flip", action="create", after_bytes=_MIDDLE, count=None)
    with pytest.raises(Corrupt, match="was not stored"):
        bucket.store.create("part", _DATA, timeout=20)
    bucket.server.clear()
    assert bucket.store.list(timeout=5) == []
    _upload(bucket.store)


def test_a_download_that_always_arrives_damaged_is_corrupt(bucket: BucketPlace) -> None:
    bucket.store.create("part", _DATA, timeout=5)
    bucket.server.fault("flip", action="get", after_bytes=_MIDDLE, count=None)
    with pytest.raises(Corrupt):
        bucket.store.read("part", timeout=20)


def test_an_answer_with_a_wrong_checksum_is_not_believed(bucket: BucketPlace) -> None:
    bucket.server.fault("wrong_checksum", action="create")
    _upload(bucket.store)
    bucket.server.fault("wrong_checksum", count=None)
    with pytest.raises(Corrupt, match="other content than sent"):
        bucket.store.create("other", b"x", timeout=20)
    with pytest.raises(Corrupt):
        bucket.store.read("part", timeout=20)


def test_a_hung_connection_leaves_time_for_another_try(bucket: BucketPlace, transfer: tuple[str, Act]) -> None:
    action, _ = transfer
    bucket.server.fault("stall", action=action, after_bytes=_MIDDLE, seconds=60)
    if action == "create":
        bucket.store.create("part", _DATA, timeout=2)
    else:
        assert bucket.store.read("part", timeout=2) == _DATA
    bucket.server.clear()


def test_a_server_that_stalls_for_good_is_unavailable_at_the_deadline(
    bucket: BucketPlace, transfer: tuple[str, Act]
) -> None:
    action, _ = transfer
    bucket.server.fault("stall", action=action, after_bytes=_MIDDLE, seconds=60, count=None)
    with pytest.raises(Unavailable, match=r"gs://.*/part: given up after \d+ tries"):
        if action == "create":
            bucket.store.create("part", _DATA, timeout=0.7)
        else:
            bucket.store.read("part", timeout=0.7)
    bucket.server.clear()


def test_a_slow_but_steady_stream_is_no_stall(bucket: BucketPlace) -> None:
    data = bytes(1 << 20)
    bucket.store.create("part", data, timeout=5)
    bucket.server.throttle(stream_bytes_per_s=2 << 20)
    # Half a second of bytes: longer than the silence that would be a stall, shorter than the deadline.
    assert bucket.store.read("part", timeout=1.2) == data


@pytest.mark.parametrize("mode", ["unavailable", "reset", "blackhole"])
def test_an_outage_shorter_than_the_timeout_is_ridden_out(bucket: BucketPlace, mode: str) -> None:
    bucket.store.create("part", b"x", timeout=5)
    bucket.server.outage(mode, seconds=0.3)  # type: ignore[arg-type]
    bucket.store.create("other", b"x", timeout=10)
    bucket.server.outage(mode, seconds=0.3)  # type: ignore[arg-type]
    assert len(bucket.store.list(timeout=10)) == 2


@pytest.mark.parametrize("mode", ["unavailable", "reset", "blackhole"])
def test_an_outage_longer_than_the_timeout_is_unavailable(bucket: BucketPlace, mode: str) -> None:
    bucket.store.create("part", b"x", timeout=5)
    bucket.server.outage(mode)  # type: ignore[arg-type]
    calls: list[Callable[[], object]] = [
        lambda: bucket.store.create("other", b"x", timeout=0.15),
        lambda: bucket.store.read("part", timeout=0.15),
        lambda: bucket.store.list(timeout=0.15),
        lambda: bucket.store.copy("part", "copy", timeout=0.15),
        lambda: bucket.store.delete("part", timeout=0.15),
        lambda: bucket.store.check(timeout=0.15),
        lambda: bucket.store.warm(20, timeout=0.15),
    ]
    for call in calls:
        with pytest.raises(Unavailable):
            call()


def test_a_missing_bucket_is_named_with_what_to_do(bucket: BucketPlace) -> None:
    store = open_store("gs://no-such-bucket/run")
    calls: list[Callable[[], object]] = [
        lambda: store.check(timeout=5),
        lambda: store.create("part", b"x", timeout=5),
        lambda: store.read("part", timeout=5),
        lambda: store.list(timeout=5),
        lambda: store.delete("part", timeout=5),
        lambda: store.copy("part", "other", timeout=5),
    ]
    for call in calls:
        with pytest.raises(NotFound, match=r"gcloud storage buckets create gs://no-such-bucket"):
            call()


def test_a_caller_without_rights_is_told_which_one_is_missing(bucket: BucketPlace) -> None:
    bucket.store.create("part", b"x", timeout=5)
    bucket.server.iam([Rule(identity="somebody", actions=frozenset({"get"}))])
    calls: dict[str, Callable[[], object]] = {
        "create": lambda: bucket.store.create("other", b"x", timeout=5),
        "get": lambda: bucket.store.read("part", timeout=5),
        "list": lambda: bucket.store.check(timeout=5),
        "delete": lambda: bucket.store.delete("part", timeout=5),
    }
    for permission, call in calls.items():
        with pytest.raises(Forbidden, match=rf"an anonymous caller needs storage\.objects\.{permission}"):
            call()


def test_a_taken_name_is_told_apart_from_a_forbidden_one(bucket: BucketPlace) -> None:
    bucket.store.create("part", b"x", timeout=5)
    # What some servers say to an identity that may not overwrite.
    bucket.server.fault("status", action="create", status=403, count=None)
    assert bucket.store.create("part", b"x", timeout=5).size == 1
    with pytest.raises(AlreadyExists):
        bucket.store.create("part", b"y", timeout=5)
    with pytest.raises(Forbidden):
        bucket.store.create("other", b"x", timeout=5)


def test_warm_asks_once_on_each_new_connection(bucket: BucketPlace) -> None:
    # Any answer will do: this one counts.
    bucket.server.fault("status", name=".warm", status=404, count=10)
    for connections, left in ((4, 6), (4, 6), (6, 4)):
        bucket.store.warm(connections, timeout=5)
        assert [each.count for each in bucket.server.pending_faults()] == [left]


def test_a_listing_of_several_pages_is_whole(bucket: BucketPlace) -> None:
    names = [f"part-{number:04}" for number in range(1005)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: bucket.store.create(name, b"", timeout=20), names))
    assert [each.name for each in bucket.store.list(timeout=20)] == names


def test_a_403_for_what_is_not_there_means_that_it_is_not_there(bucket: BucketPlace) -> None:
    bucket.store.create("there", b"x", timeout=5)
    bucket.server.fault("status", action="get", status=403, count=None)
    with pytest.raises(NotFound):
        bucket.store.read("missing", timeout=5)
    with pytest.raises(Forbidden, match=r"storage\.objects\.get"):
        bucket.store.read("there", timeout=5)
    bucket.server.fault("status", action="list", status=403, count=None)
    with pytest.raises(Forbidden, match=r"storage\.objects\.get"):
        bucket.store.read("missing", timeout=5)


def test_what_is_held_stays_and_is_named_while_all_others_go(bucket: BucketPlace) -> None:
    for name in ("a", "b", "c"):
        bucket.store.create(name, b"x", timeout=5)
    bucket.server.hold(bucket.bucket, "run/b")
    stayed = bucket.store.delete_many(["a", "b", "c"], timeout=5)
    assert list(stayed) == ["b"]
    assert isinstance(stayed["b"], Held) and "Temporary hold" in str(stayed["b"])
    assert [each.name for each in bucket.store.list(timeout=5)] == ["b"]
    with pytest.raises(Held):
        bucket.store.delete("b", timeout=5)
    with pytest.raises(Held):
        bucket.store.replace("b", b"y", timeout=5)
    bucket.server.hold(bucket.bucket, "run/b", held=False)
    assert bucket.store.delete_many(["b"], timeout=5) == {}


def test_a_retention_policy_keeps_an_object_until_its_time(bucket: BucketPlace) -> None:
    bucket.server.create_bucket("retaining", retention_s=3600)
    store = open_store("gs://retaining/run")
    store.create("part", b"x", timeout=5)
    assert isinstance(store.delete_many(["part"], timeout=5)["part"], Held)


def test_a_batch_that_is_refused_or_lost_is_asked_again_and_says_what_stayed(bucket: BucketPlace) -> None:
    for number in range(250):
        bucket.store.create(f"part-{number}", b"", timeout=20)
    bucket.server.fault("status", action="batch", status=503, count=2)
    bucket.server.fault("reset", action="batch", after_done=True)
    bucket.server.forget_requests()
    assert bucket.store.delete_many((f"part-{number}" for number in range(250)), timeout=20) == {}
    assert bucket.store.list(timeout=5) == []
    assert len([each for each in bucket.server.requests() if each.action == "batch"]) == 6
    bucket.store.create("part", b"", timeout=5)
    bucket.server.fault("status", action="batch", status=503, count=None)
    assert isinstance(bucket.store.delete_many(["part"], timeout=0.3)["part"], Unavailable)


def test_each_name_of_a_batch_has_an_error_of_its_own(bucket: BucketPlace) -> None:
    bucket.store.create("mine/part", b"x", timeout=5)
    bucket.store.create("milestones/part", b"x", timeout=5)
    rules = [Rule(identity="*", actions=frozenset({"delete"}), prefix="run/mine/")]
    bucket.server.iam([*rules, Rule(identity="*", actions=frozenset({"list", "get", "create"}))])
    stayed = bucket.store.delete_many(["mine/part", "milestones/part"], timeout=5)
    assert {name: type(error) for name, error in stayed.items()} == {"milestones/part": Forbidden}
    bucket.server.iam([])
    missing = open_store("gs://no-such-bucket/run").delete_many(["a", "b"], timeout=5)
    assert [type(error) for error in missing.values()] == [NotFound, NotFound]
    assert "gcloud storage buckets create gs://no-such-bucket" in str(missing["a"])
