"""What is kept, what is deleted, and in which order."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from agent.checkpoint.bucket import Checkpoints, Entry
from agent.checkpoint.manifest import (
    Manifest,
    ManifestError,
    Part,
    RankParts,
    folder_name,
)
from agent.store import AlreadyExists, Corrupt, Forbidden, NotFound, StoreError, open_store
from agent.store.formats import NewerFormatError
from agent.store.names import MILESTONE_PART, MILESTONES, ROLLING
from tests.agent.stores import Watched

RUN = "run"
T = 10.0


@dataclass
class Bucket:
    """Checkpoints written by hand, each of two small parts."""

    store: Watched

    def __post_init__(self) -> None:
        self.checkpoints = Checkpoints(self.store, RUN)

    def upload(self, step: int, attempt: int) -> list[Part]:
        """The parts of a checkpoint that is not committed yet."""
        folder = f"{ROLLING}{folder_name(step, attempt)}"
        parts = []
        for number in range(2):
            name = f"{folder}/part-{number:05d}.bin"
            stored = self.store.create(name, f"{name} of {attempt}".encode(), timeout=T)
            parts.append(Part(name=name, offset=0, size=stored.size, crc32c=stored.crc32c))
        return [parts[0], parts[1].model_copy(update={"offset": parts[0].size})]

    def manifest(self, step: int, attempt: int, parts: list[Part], reason: str = "cadence") -> Manifest:
        ranks = [RankParts(rank=0, size=sum(part.size for part in parts), parts=parts)]
        return Manifest(
            run_id=RUN, step=step, attempt=attempt, reason=reason, created="", layout="safetensors", world_size=1,
            ranks=ranks, state={},
        )  # fmt: skip

    def commit(self, step: int, attempt: int = 1, reason: str = "cadence") -> Manifest:
        manifest = self.manifest(step, attempt, self.upload(step, attempt), reason)
        entry = self.checkpoints.commit(manifest, timeout=T)
        if reason == "milestone" or self.checkpoints.line.known:
            due, kept = {entry.folder} if reason == "milestone" else set(), set(self.checkpoints.kept)
            self.checkpoints.line.commit(
                attempt=attempt, claimant="us", folder=entry.folder, step=step, due=due, kept=kept, keep=1, timeout=T
            )
        return manifest

    def replace_manifest(self, step: int, attempt: int, content: bytes) -> None:
        self.store.replace(f"{ROLLING}{folder_name(step, attempt)}/manifest.json", content, timeout=T)

    def retire(self, keep: int = 2, attempt: int = 1, busy: tuple[str, ...] = ()) -> list[str]:
        return self.checkpoints.retire(keep=keep, attempt=attempt, busy=busy, timeout=T)

    def rolling(self) -> set[str]:
        """The folders that hold anything."""
        return {name.removeprefix(ROLLING).partition("/")[0] for name in self.store.names(ROLLING)}

    def assert_whole(self) -> None:
        """Every manifest that can be read names parts that are there."""
        for entry in self.checkpoints.entries(timeout=T):
            for name in self.checkpoints.read(entry, timeout=T).part_names():
                self.store.read(name, timeout=T)


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return Bucket(Watched(open_store(f"file://{tmp_path}")))


def test_the_newest_checkpoint_comes_first_and_folders_without_a_manifest_are_none(bucket: Bucket) -> None:
    for step, attempt in ((4, 1), (12, 1), (8, 2), (8, 1)):
        bucket.commit(step, attempt)
    bucket.upload(16, 3)
    bucket.store.create(f"{ROLLING}somebody-else/manifest.json", b"{}", timeout=T)
    bucket.store.create(f"{ROLLING}manifest.json", b"{}", timeout=T)
    found = bucket.checkpoints.entries(timeout=T)
    assert [(entry.step, entry.attempt) for entry in found] == [(12, 1), (8, 2), (8, 1), (4, 1)]


def test_a_checkpoint_is_committed_once(bucket: Bucket) -> None:
    manifest = bucket.commit(4)
    again = manifest.model_copy(update={"created": "later"})
    assert bucket.checkpoints.commit(again, timeout=T) == Entry(4, 1, rolling=True)
    assert bucket.checkpoints.read(Entry(4, 1, rolling=True), timeout=T).created == ""
    other = bucket.manifest(4, 1, [manifest.ranks[0].parts[0]])
    with pytest.raises(AlreadyExists):
        bucket.checkpoints.commit(other, timeout=T)


def test_the_newest_k_stay_and_nothing_of_the_others(bucket: Bucket) -> None:
    for step in (4, 8, 12, 16):
        bucket.commit(step)
    bucket.retire(keep=2)
    assert bucket.rolling() == {folder_name(12, 1), folder_name(16, 1)}
    bucket.assert_whole()
    assert bucket.retire(keep=2) == []


def test_a_manifest_goes_before_its_parts(bucket: Bucket) -> None:
    for step in (4, 8):
        bucket.commit(step)
    deleted = bucket.retire(keep=1)
    assert deleted[0] == f"{ROLLING}{folder_name(4, 1)}/manifest.json"
    assert [name for operation, name in bucket.store.operations if operation == "delete"] == deleted
    assert len(deleted) == 3


def test_parts_that_a_kept_checkpoint_refers_to_stay_wherever_they_lie(bucket: Bucket) -> None:
    frozen, trained = bucket.commit(4).ranks[0].parts
    fresh = bucket.upload(8, 1)[0]
    bucket.checkpoints.commit(
        bucket.manifest(8, 1, [frozen, fresh.model_copy(update={"offset": frozen.size})]), timeout=T
    )
    bucket.retire(keep=1)
    assert frozen.name in bucket.store.names()
    assert trained.name not in bucket.store.names()
    bucket.assert_whole()


def test_torn_uploads_of_older_attempts_go_and_those_still_under_way_stay(bucket: Bucket) -> None:
    bucket.commit(8, 2)
    for step, attempt in ((4, 1), (40, 1), (4, 2), (12, 2), (12, 3), (4, 3)):
        bucket.upload(step, attempt)
    bucket.retire(attempt=2, busy=(f"{ROLLING}{folder_name(40, 1)}",))
    assert bucket.rolling() == {folder_name(s, a) for s, a in ((8, 2), (40, 1), (12, 2), (12, 3), (4, 3))}


def test_milestones_outlive_their_checkpoints(bucket: Bucket) -> None:
    bucket.commit(4, reason="milestone")
    bucket.commit(8)
    assert bucket.checkpoints.keep_milestones(timeout=T) == [Entry(4, 1, rolling=False)]
    bucket.retire(keep=1)
    assert len(bucket.rolling()) == 2, "the line still names it"
    bucket.commit(12)
    bucket.store.operations.clear()
    assert bucket.checkpoints.keep_milestones(timeout=T) == [], "once is enough"
    assert bucket.store.operations == [], "nor does that ask anybody"
    bucket.retire(keep=1)
    assert [entry.folder for entry in bucket.checkpoints.entries(timeout=T)] == [
        f"{ROLLING}{folder_name(12, 1)}",
        f"{MILESTONES}{folder_name(4, 1)}",
    ]
    kept = bucket.checkpoints.read(Entry(4, 1, rolling=False), timeout=T)
    assert all(name.startswith(MILESTONES) for name in kept.part_names())
    bucket.assert_whole()


def test_a_milestone_that_was_copied_half_is_copied_whole_the_next_time(bucket: Bucket) -> None:
    manifest = bucket.commit(4, reason="milestone")
    first = manifest.ranks[0].parts[0].name
    bucket.store.copy(first, f"{MILESTONES}{folder_name(4, 1)}/rank-00000-part-00000{MILESTONE_PART}", timeout=T)
    assert bucket.checkpoints.keep_milestones(timeout=T) == [Entry(4, 1, rolling=False)]
    bucket.assert_whole()


def test_a_window_that_opens_while_a_milestone_is_copied_has_the_network_and_the_rest_comes_after_it(
    bucket: Bucket,
) -> None:
    bucket.commit(4, reason="milestone")
    copies = iter([False])
    assert bucket.checkpoints.keep_milestones(timeout=T, stop=lambda: next(copies, True)) == []
    assert len(bucket.store.names(MILESTONES)) == 1, "one part of two, and no manifest"
    assert [entry.step for entry in bucket.checkpoints.keep_milestones(timeout=T)] == [4]


def test_a_milestone_that_is_damaged_does_not_stand_in_the_way_of_the_others(bucket: Bucket) -> None:
    bucket.commit(2, reason="milestone")
    taken = f"{MILESTONES}{folder_name(2, 1)}/rank-00000-part-00000{MILESTONE_PART}"
    bucket.store.create(taken, b"something else", timeout=T)
    bucket.commit(4, reason="milestone")
    broken = bucket.commit(8, reason="milestone")
    bucket.commit(12, reason="milestone")
    bucket.store.delete(broken.ranks[0].parts[1].name, timeout=T)
    bucket.replace_manifest(12, 1, b"not a manifest")
    with capture_logs() as said:
        assert bucket.checkpoints.keep_milestones(timeout=T) == [Entry(4, 1, rolling=False)]
    assert [(event["event"], event["log_level"], event["folder"]) for event in said] == [
        ("checkpoint_bad", "error", f"{ROLLING}{folder_name(12, 1)}"),
        ("checkpoint_bad", "error", f"{ROLLING}{folder_name(8, 1)}"),
        ("milestone_taken", "error", f"{ROLLING}{folder_name(2, 1)}"),
    ]


def test_an_attempt_that_fell_back_does_not_lose_its_checkpoints_to_the_bad_ones_it_passed_over(bucket: Bucket) -> None:
    bucket.commit(8, 1)
    bucket.commit(12, 1)  # bad, say: attempt 2 began at 8
    bucket.commit(10, 2)
    bucket.retire(keep=1, attempt=2)
    assert bucket.rolling() == {folder_name(10, 2)}


def raise_corrupt(operation: str, name: str) -> None:
    if operation == "read" and folder_name(8, 1) in name:
        raise Corrupt("flipped")


@pytest.mark.parametrize(
    "content", [b"not JSON", b"{}", b"[1]", None], ids=["garbage", "empty", "list", "flipped byte"]
)
def test_a_bad_manifest_neither_stops_retention_nor_loses_its_own_parts(bucket: Bucket, content: bytes | None) -> None:
    for step in (4, 8, 12):
        bucket.commit(step)
    if content is None:
        bucket.store.before = raise_corrupt
    else:
        bucket.replace_manifest(8, 1, content)
    bucket.retire(keep=2)
    assert bucket.rolling() == {folder_name(8, 1), folder_name(12, 1)}
    assert len(bucket.store.names(f"{ROLLING}{folder_name(8, 1)}")) == 3


def test_where_a_newer_version_has_written_nothing_is_deleted(bucket: Bucket) -> None:
    for step in (4, 8, 12):
        bucket.commit(step)
    bucket.replace_manifest(8, 1, b'{"format": 3}')
    before = bucket.store.names()
    for keep in (2, 3):
        with pytest.raises(NewerFormatError, match="upgrade"):
            bucket.retire(keep=keep)
    assert bucket.store.names() == before


def test_a_manifest_of_another_run_is_refused(bucket: Bucket) -> None:
    bucket.commit(4)
    other = Checkpoints(bucket.store, "other")
    with pytest.raises(ManifestError, match="two runs share a prefix"):
        other.read(Entry(4, 1, rolling=True), timeout=T)


class Died(Exception):
    pass


def dying_after(count: int) -> Callable[[str, str], None]:
    seen = itertools.count()

    def hook(operation: str, name: str) -> None:
        if next(seen) >= count:
            raise Died

    return hook


@settings(max_examples=40, deadline=None)
@given(
    committed=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 3)), min_size=1, max_size=5, unique=True),
    torn=st.lists(st.tuples(st.integers(6, 9), st.integers(1, 3)), max_size=2, unique=True),
    refers=st.booleans(),
    keep=st.integers(1, 3),
    attempt=st.integers(1, 3),
    lives=st.integers(0, 30),
)
def test_retention_killed_at_any_point_leaves_every_manifest_whole(
    tmp_path_factory: pytest.TempPathFactory,
    *,
    committed: list[tuple[int, int]],
    torn: list[tuple[int, int]],
    refers: bool,
    keep: int,
    attempt: int,
    lives: int,
) -> None:
    raw = Bucket(Watched(open_store(f"file://{tmp_path_factory.getbasetemp()}/{uuid.uuid4().hex}")))
    shared: list[Part] = []
    for at, (step, own) in enumerate(sorted(committed)):
        parts = raw.upload(step, own)
        if refers and at:
            parts = [shared[0], parts[1].model_copy(update={"offset": shared[0].size})]
        shared = parts
        raw.checkpoints.commit(raw.manifest(step, own, parts), timeout=T)
    for step, own in torn:
        raw.upload(step, own)
    dying = Bucket(Watched(raw.store, before=dying_after(lives)))
    try:
        dying.retire(keep=keep, attempt=attempt)
    except Died:
        raw.assert_whole()
    raw.assert_whole()
    kept = sorted(((own, step) for step, own in committed), reverse=True)[:keep]
    assert {(entry.attempt, entry.step) for entry in raw.checkpoints.entries(timeout=T)} >= set(kept)
    raw.retire(keep=keep, attempt=3)
    raw.assert_whole()
    assert {(entry.attempt, entry.step) for entry in raw.checkpoints.entries(timeout=T)} == set(kept)


def test_reading_a_checkpoint_that_is_gone_says_so(bucket: Bucket) -> None:
    with pytest.raises(NotFound):
        bucket.checkpoints.read(Entry(4, 1, rolling=True), timeout=T)


def test_what_is_under_a_hold_is_told_once_and_stands_in_nobodys_way(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (4, 8, 12, 16):
        bucket.commit(step)
    held = f"{ROLLING}{folder_name(4, 1)}"

    really = bucket.store.delete_many

    def delete_many(names: Iterable[str], *, timeout: float) -> dict[str, StoreError]:
        stays = f"{held}/manifest.json"
        refused = {stays: Forbidden("the object is under an active hold")} if stays in names else {}
        return {**really([name for name in names if name != stays], timeout=timeout), **refused}

    monkeypatch.setattr(bucket.store, "delete_many", delete_many)
    with capture_logs() as said:
        deleted = [*bucket.retire(keep=2), *bucket.retire(keep=2)]
    assert {name.rpartition("/")[0] for name in deleted} == {f"{ROLLING}{folder_name(8, 1)}"}
    assert [(event["event"], event["name"]) for event in said] == [("not_retired", f"{held}/manifest.json")]
    assert len(bucket.store.names(held)) == 3, "its parts stay with it"


@pytest.mark.slow
def test_a_hundred_milestones_cost_a_commit_nothing(bucket: Bucket) -> None:
    for step in range(1, 101):
        bucket.commit(step, reason="milestone")
        bucket.checkpoints.keep_milestones(timeout=T)
    bucket.commit(200)
    bucket.store.operations.clear()
    assert bucket.checkpoints.keep_milestones(timeout=T) == []
    bucket.retire()
    asked = {(operation, name.partition("/")[0]) for operation, name in bucket.store.operations}
    assert ("list", "milestones") not in asked
    assert ("read", "milestones") not in asked


def test_a_run_that_fell_back_loses_nothing_that_it_passed_over_before_it_is_past_it(bucket: Bucket) -> None:
    line = bucket.checkpoints.line
    line.claim(claimant="us", facts={}, found=list, timeout=T)
    for step in (4, 8):
        bucket.commit(step)
    line.fall_back(attempt=1, claimant="us", step=4, without={f"{ROLLING}{folder_name(8, 1)}"}, timeout=T)
    bucket.commit(6)
    bucket.retire()
    assert folder_name(8, 1) in bucket.rolling(), "somebody may want to look at it"
    bucket.commit(9)
    bucket.retire()
    assert folder_name(8, 1) not in bucket.rolling()
