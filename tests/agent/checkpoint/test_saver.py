"""From staged to committed: whatever the trainer does meanwhile, and whoever else trains this run."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from spot_training.protocol.arena import Arena
from spot_training.protocol.messages import ProtocolError, SaveReason, Staged
from structlog.testing import capture_logs

from agent.checkpoint.bucket import Checkpoints
from agent.checkpoint.line import Superseded
from agent.checkpoint.manifest import folder_name
from agent.store import Forbidden, StoreError, Unavailable, open_store
from agent.store.names import ROLLING
from agent.telemetry.ledger import Resume
from agent.trainer.launch import fetch_state
from infra.local.bucket import RunRecords
from tests.agent.checkpoint.saving import PART, PATIENCE_S, RUN, SIZE, arena_files, claim, content, line, newest, saving
from tests.agent.stores import Watched


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr("agent.checkpoint.drain.MIN_PART", PART)
    monkeypatch.setattr("agent.checkpoint.drain.MAX_PART", PART)
    return Watched(open_store(f"file://{tmp_path}"))


class Gate:
    """Holds operations on names that contain `name` until it is opened."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._open = threading.Event()
        self.reached = threading.Event()

    def __call__(self, operation: str, name: str) -> None:
        if self._name in name and operation == "create":
            self.reached.set()
            assert self._open.wait(PATIENCE_S)

    def open(self) -> None:
        self._open.set()

    async def wait(self) -> None:
        assert await asyncio.to_thread(self.reached.wait, PATIENCE_S)


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 4 * PATIENCE_S))


def test_a_staged_snapshot_is_committed_and_the_trainer_hears_of_it(store: Watched) -> None:
    async def scenario() -> None:
        heard: list[tuple[int, Staged]] = []

        async def on_commit(index: int, staged: Staged) -> None:
            heard.append((index, staged))

        async with saving(store) as toy:
            toy.saver.on_commit = on_commit
            staged = await toy.stage(4, arena=1, reason="emergency")
            assert toy.saver.slots[1].busy
            assert await toy.saver.wait_committed(step=4, timeout=PATIENCE_S)
            await toy.saver.settle(timeout=PATIENCE_S)
            assert heard == [(1, staged)]
            assert not toy.saver.slots[1].busy
            commit = toy.saver.last_commit
            assert commit
            assert (commit.step, commit.reason, commit.size) == (4, "emergency", SIZE)
            assert commit.staged_at <= commit.last_byte_at <= commit.committed_at
            assert toy.saver.expected_save_s() == commit.copy_s + commit.committed_at - commit.staged_at

    play(scenario)
    assert newest(store) == (4, 1)
    (entry,) = Checkpoints(store, RUN).entries(timeout=PATIENCE_S)
    manifest = Checkpoints(store, RUN).read(entry, timeout=PATIENCE_S)
    assert (manifest.reason, manifest.state, manifest.layout, manifest.world_size) == (
        "emergency", {"step": 4}, "safetensors", 1,
    )  # fmt: skip


def test_in_a_window_parts_are_in_the_bucket_before_the_snapshot_is_whole(store: Watched) -> None:
    arrived = threading.Event()
    store.after = lambda operation, name: arrived.set() if "part-00000" in name else None

    async def scenario() -> None:
        async with saving(store) as toy:
            toy.saver.urge(time.monotonic() + 60)
            toy.arenas[0].view[:] = content(4)
            toy.saver.staging(0, 4, PART + 1)
            assert await asyncio.to_thread(arrived.wait, PATIENCE_S)
            assert toy.saver.staged_step == 0
            await toy.saver.staged(toy.staged(4))
            assert await toy.saver.wait_committed(step=4, timeout=PATIENCE_S)

    play(scenario)
    assert newest(store) == (4, 1)


def test_every_line_is_in_the_bucket_once_however_two_saves_overlap(store: Watched) -> None:
    gate = Gate(f"{folder_name(4, 1)}/part-00001")

    async def scenario() -> None:
        async with saving(store) as toy:
            toy.saver.uploader.connections = toy.saver.uploader.background = 2
            store.before = gate
            toy.log(0, 4)
            await toy.stage(4, 0)
            await gate.wait()
            toy.log(4, 8)
            await toy.stage(8, 1, "emergency")
            toy.log(8, 10)
            if await toy.saver.wait_committed(step=8, timeout=PATIENCE_S):
                gate.open()
            await toy.saver.settle(timeout=PATIENCE_S)
            assert toy.saver.committed_step == 8
            await toy.save(10, 1)

    play(scenario)
    raw = [
        json.loads(text)
        for name in sorted(store.names("metrics/"))
        for text in store.read(name, timeout=5).splitlines()
    ]
    assert raw == [line(step) for step in range(10)]
    assert {entry.step for entry in Checkpoints(store, RUN).entries(timeout=5)} == {8, 10}


def test_a_trainer_that_starts_again_from_memory_loses_no_line_and_repeats_none(store: Watched) -> None:
    gate = Gate("part-00001")

    async def scenario() -> None:
        async with saving(store) as toy:
            toy.log(0, 4)
            await toy.save(4)
            store.before = gate
            toy.log(4, 8)
            await toy.stage(8, 1)
            toy.log(8, 11)  # trained on, and crashed
            await gate.wait()
            await toy.saver.give_up_unstaged("the trainer ended")
            snapshot = toy.saver.slots.newest()
            assert snapshot
            assert (snapshot[0], snapshot[1].step) == (1, 8)
            second = claim(store, "us")
            toy.saver.begin_attempt(second, 8)
            gate.open()
            toy.log(8, 12)
            assert await toy.saver.wait_committed(step=8, timeout=PATIENCE_S), "our own next attempt is no rival"
            await toy.save(12, 0)

    play(scenario)
    assert newest(store) == (12, 2)
    assert RunRecords(store).metrics() == [line(step) for step in range(12)]
    names = {name.partition("/")[2] for name in store.names("metrics/")}
    assert names == {f"{a:012d}-{b:012d}-{at:05d}.jsonl" for a, b, at in ((0, 3, 1), (4, 7, 1), (8, 11, 2))}


def test_a_superseded_saver_commits_nothing_and_says_why(store: Watched) -> None:
    async def scenario() -> None:
        failures: list[Exception] = []

        async def on_failure(index: int, staged: Staged, error: Exception) -> None:
            failures.append(error)

        async with saving(store, claimant="old VM") as toy:
            toy.saver.on_failure = on_failure
            toy.log(0, 4)
            await toy.stage(4)
            assert await toy.saver.wait_committed(step=4, timeout=PATIENCE_S)
            await toy.saver.settle(timeout=PATIENCE_S)
            assert claim(store, "new VM") == 2
            toy.log(4, 8)
            await toy.save(8, 1)
            assert newest(store) == (4, 1), "what it wrote is no checkpoint of the run"
            assert RunRecords(store).metrics() == [line(step) for step in range(4)], "nor are its lines"
            assert [type(error) for error in failures] == [Superseded]
            assert "attempt 2 of this run has started elsewhere" in str(failures[0])
            assert (toy.saver.committed_step, toy.saver.staged_step) == (4, 4)

    play(scenario)


def test_an_outage_between_the_last_byte_and_the_manifest_is_ridden_out(
    store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.checkpoint.commit._CALL_TIMEOUT_S", 0.05)
    tries: dict[str, int] = {}

    def outage(operation: str, name: str) -> None:
        kind = name.partition("/")[0] if "part-" not in name else "part"
        tries[kind] = tries.get(kind, 0) + 1
        if kind in ("line", "metrics", "rolling") and tries[kind] <= 3:
            raise Unavailable("no answer")

    async def scenario() -> None:
        async with saving(store, attempt=1) as toy:
            toy.log(0, 4)
            store.before = outage
            await toy.save(4)
            store.before = lambda operation, name: None

    play(scenario)
    assert newest(store) == (4, 1)
    assert {kind: count for kind, count in tries.items() if count > 3}.keys() >= {"line", "metrics", "rolling"}


def test_an_outage_that_lasts_past_the_window_ends_the_save_not_the_agent(store: Watched) -> None:
    def outage(operation: str, name: str) -> None:
        if name.endswith("manifest.json") and operation == "create":
            raise Unavailable("no answer")

    async def scenario() -> None:
        failed = asyncio.Event()

        async def on_failure(index: int, staged: Staged, error: Exception) -> None:
            assert isinstance(error, Unavailable)
            failed.set()

        async with saving(store) as toy:
            toy.saver.on_failure = on_failure
            store.before = outage
            await toy.stage(4)
            toy.saver.urge(time.monotonic() + 0.05)  # in the middle of it all
            await asyncio.wait_for(failed.wait(), PATIENCE_S)
            assert not await toy.saver.wait_committed(step=4, timeout=0.0)
            assert toy.saver.staged_step == 0
            store.before = lambda operation, name: None
            toy.saver.urge(None)
            await toy.save(4)  # the same boundary once more
            assert toy.saver.committed_step == 4

    play(scenario)
    assert newest(store) == (4, 1)


def test_a_snapshot_that_was_lost_on_its_way_is_sent_again_when_a_trainer_starts_from_it(store: Watched) -> None:
    def outage(operation: str, name: str) -> None:
        raise Unavailable("no answer")

    async def scenario() -> None:
        async with saving(store) as toy:
            toy.log(0, 4)
            store.before = outage
            toy.saver.urge(time.monotonic())
            await toy.save(4)
            store.before = lambda operation, name: None
            toy.saver.urge(None)
            assert toy.saver.committed_step == 0
            snapshot = toy.saver.slots.newest()
            assert snapshot
            toy.saver.begin_attempt(claim(store, "us"), 4)
            await toy.saver.drain_again(snapshot[1])
            assert toy.saver.slots[0].busy
            assert await toy.saver.wait_committed(step=4, timeout=PATIENCE_S)
            await toy.saver.drain_again(snapshot[1])
            assert not toy.saver.slots[0].busy, "it is there"

    play(scenario)
    assert newest(store) == (4, 2)
    assert RunRecords(store).metrics() == [line(step) for step in range(4)]


def test_a_drain_whose_arena_is_out_of_use_is_neither_retired_nor_leaked(store: Watched) -> None:
    gate = Gate("part-00001")
    retired = threading.Event()
    store.after = lambda operation, name: retired.set() if operation == "delete" and folder_name(4, 1) in name else None

    async def scenario() -> None:
        async with saving(store, keep=1) as toy:
            toy.saver.uploader.connections = toy.saver.uploader.background = 2
            await toy.save(4)
            before = arena_files()
            store.before = gate
            await toy.stage(8)
            await gate.wait()
            toy.arenas = [Arena.create(SIZE), Arena.create(SIZE)]  # the state has grown, say
            toy.saver.share(0, toy.arenas)
            toy.saver.begin_attempt(claim(store, "us"), 8)
            store.before = lambda operation, name: None
            await toy.stage(9, 1)
            assert await toy.saver.wait_committed(step=9, timeout=PATIENCE_S)
            assert await asyncio.to_thread(retired.wait, PATIENCE_S)
            assert f"{ROLLING}{folder_name(8, 1)}/part-00000.bin" in store.names()
            gate.open()
            await toy.saver.settle(timeout=PATIENCE_S)
            assert arena_files() == before
            entries = Checkpoints(store, RUN).entries(timeout=5)
            for entry in entries:
                for name in Checkpoints(store, RUN).read(entry, timeout=5).part_names():
                    store.read(name, timeout=5)

    play(scenario)
    assert newest(store) == (9, 2)


def test_an_arena_out_of_use_is_still_hurried_in_a_window(store: Watched) -> None:
    gate = Gate("part-00001")

    async def scenario() -> None:
        async with saving(store) as toy:
            store.before = gate
            await toy.stage(4)
            await gate.wait()
            drain = toy.saver.slots[0].drain
            assert drain
            toy.saver.share(0, [])
            toy.saver.urge(time.monotonic() + 60)
            assert drain.urgent
            gate.open()
            assert await toy.saver.wait_committed(step=4, timeout=PATIENCE_S)

    play(scenario)


def test_what_is_said_twice_is_committed_once(store: Watched) -> None:
    """A trainer that finds a restarted agent says again what the last one may not have heard."""

    async def scenario() -> None:
        heard: list[int] = []

        async def on_commit(index: int, staged: Staged) -> None:
            heard.append(staged.step)

        async with saving(store) as toy:
            toy.saver.on_commit = on_commit
            staged = await toy.stage(4)
            await toy.saver.staged(staged)
            await toy.saver.settle(timeout=PATIENCE_S)
            await toy.saver.staged(staged)
            assert not toy.saver.slots[0].busy
            assert heard == [4]

    play(scenario)


def test_a_trainer_killed_while_it_stages_leaves_the_snapshot_before_it(store: Watched) -> None:
    async def scenario() -> None:
        async with saving(store) as toy:
            await toy.save(4, 0)
            await toy.save(8, 1)
            toy.saver.staging(0, 12, 0)
            assert toy.saver.slots[0].busy
            await toy.saver.give_up_unstaged("the trainer ended while it was staging")
            assert not toy.saver.slots[0].busy
            snapshot = toy.saver.slots.newest()
            assert snapshot
            assert (snapshot[0], snapshot[1].step) == (1, 8)
            toy.saver.staging(1, 12, 0)
            await toy.saver.give_up_unstaged("and again")
            assert toy.saver.slots.newest() is None, "neither arena is what it was"

    play(scenario)
    assert newest(store) == (8, 1)


@pytest.mark.parametrize("index", [2, -1])
def test_staging_into_an_arena_that_nobody_shared_is_a_protocol_error(store: Watched, index: int) -> None:
    async def scenario() -> None:
        async with saving(store) as toy:
            with pytest.raises(ProtocolError, match=f"arena {index} of 2"):
                toy.saver.staging(index, 4, 0)

    play(scenario)


def test_staging_into_an_arena_that_still_drains_is_a_protocol_error(store: Watched) -> None:
    gate = Gate("part-00001")

    async def scenario() -> None:
        async with saving(store) as toy:
            store.before = gate
            await toy.stage(4)
            with pytest.raises(ProtocolError, match="where step 4 still drains"):
                toy.saver.staging(0, 8, 0)
            gate.open()

    play(scenario)
    assert newest(store) == (4, 1)


def test_a_fetched_checkpoint_takes_the_place_of_arenas_that_hold_nothing(store: Watched) -> None:
    async def scenario() -> None:
        before = arena_files()
        async with saving(store) as toy:
            fetched = Arena.create(SIZE)
            toy.saver.hold(fetched, toy.staged(4))
            assert [slot.arena for slot in toy.saver.slots] == [fetched]
            assert arena_files() == before + 2, "its descriptor and its map's"
            assert toy.saver.slots.newest() == (0, toy.staged(4))

    play(scenario)


def test_in_a_window_nothing_is_copied_or_deleted(store: Watched) -> None:
    async def scenario() -> None:
        async with saving(store, keep=1) as toy:
            await toy.save(4)
            toy.saver.urge(time.monotonic() + 60)
            await toy.save(8, 1, "milestone")
            assert not {operation for operation, _ in store.operations} & {"copy", "delete"}
            toy.saver.urge(None)
            await toy.saver.settle(timeout=PATIENCE_S)
            assert {operation for operation, _ in store.operations} >= {"copy", "delete"}, "after it, what was left"
            await toy.save(12)

    play(scenario)
    kept = [(entry.step, entry.rolling) for entry in Checkpoints(store, RUN).entries(timeout=5)]
    assert kept == [(12, True), (8, False)], "the line lets go of it with the next commit"


def test_housekeeping_that_fails_is_said_and_nothing_else(store: Watched) -> None:
    def trouble(operation: str, name: str) -> None:
        if operation == "list" and name == ROLLING:
            raise RuntimeError("a bug")

    async def scenario() -> None:
        async with saving(store) as toy:
            store.before = trouble
            await toy.save(4)
            await toy.save(8, 1)
            assert toy.saver.committed_step == 8

    with capture_logs() as said:
        play(scenario)
    assert [event["event"] for event in said] == ["committed", "housekeeping_failed"] * 2


def test_waiting_for_a_commit_ends_at_its_timeout(store: Watched) -> None:
    async def scenario() -> None:
        async with saving(store) as toy:
            assert not await toy.saver.wait_committed(step=1, timeout=0.0)
            await toy.stage(4)
            assert not await toy.saver.wait_committed(step=4, timeout=0.0)
            assert await toy.saver.wait_committed(step=4, timeout=PATIENCE_S)

    play(scenario)


def test_a_folder_is_told_from_tensors_by_its_manifest(store: Watched) -> None:
    async def scenario() -> None:
        async with saving(store) as toy:
            toy.arenas[0].view[:] = content(4)
            await toy.saver.staged(Staged(0, 4, SIZE, {"step": 4, "listing": [0, SIZE]}, "cadence", 0.0))
            assert await toy.saver.wait_committed(step=4, timeout=PATIENCE_S)

    play(scenario)
    (entry,) = Checkpoints(store, RUN).entries(timeout=5)
    assert Checkpoints(store, RUN).read(entry, timeout=5).layout == "folder"


def test_an_agent_that_adopts_a_fallback_knows_what_is_safe_of_it_and_what_is_not(store: Watched) -> None:
    """The newest was damaged and passed over; the agent died before the first commit after that."""

    async def scenario() -> None:
        async with saving(store) as toy:
            await toy.save(4)
            await toy.save(8, 1)
        async with saving(store) as toy:
            attempt = toy.saver.attempt
            await asyncio.to_thread(toy.saver.fall_back, 4, {f"{ROLLING}{folder_name(8, 1)}"}, timeout=PATIENCE_S)
        async with saving(store, attempt=attempt) as toy:
            await asyncio.to_thread(toy.saver.learn, attempt, timeout=PATIENCE_S)
            assert toy.saver.committed_step == 4, "not the bucket's highest"
            toy.saver.urge(time.monotonic() + 60)
            await toy.stage(6)
            assert await toy.saver.wait_committed(step=6, timeout=PATIENCE_S)

    play(scenario)
    assert newest(store) == (6, 2)


def test_what_lies_in_memory_is_not_taken_where_another_vm_has_advanced_the_run(store: Watched) -> None:
    async def scenario() -> None:
        async with saving(store, claimant="a") as old:
            await old.save(4)
            await old.save(100, 1)
            async with saving(store, claimant="b") as new:
                new.saver.begin_attempt(new.saver.attempt, 100)
                await new.save(112)
            resume = Resume(RUN, await asyncio.to_thread(old.saver.claim, facts={}, timeout=PATIENCE_S), "vm", 0.0)
            assert old.saver.forked
            staged = await fetch_state(old.saver, resume)
            assert staged
            assert (resume.source, staged.step) == ("bucket", 112)

    play(scenario)


def test_a_slow_deletion_does_not_stand_in_the_way_of_an_emergency_save(store: Watched) -> None:
    deleting, go_on = threading.Event(), threading.Event()

    def before(operation: str, name: str) -> None:
        if operation == "delete":
            deleting.set()
            assert go_on.wait(PATIENCE_S)

    async def scenario() -> None:
        async with saving(store, keep=1) as toy:
            await toy.save(4)
            store.before = before
            await toy.stage(8, 1)
            assert await asyncio.to_thread(deleting.wait, PATIENCE_S)
            toy.saver.urge(time.monotonic() + 60)
            await toy.stage(12)
            assert await toy.saver.wait_committed(step=12, timeout=PATIENCE_S), "while the deletion hangs"
            go_on.set()

    play(scenario)
    assert newest(store) == (12, 1)


def test_a_boundary_that_was_staged_for_another_reason_is_kept_as_its_milestone_all_the_same(store: Watched) -> None:
    async def scenario() -> None:
        async with saving(store, keep=1) as toy:
            await toy.save(4)
            toy.saver.want_milestone(4)
            await toy.save(8, 1)

    play(scenario)
    kept = [(entry.step, entry.rolling) for entry in Checkpoints(store, RUN).entries(timeout=5)]
    assert (4, False) in kept


@pytest.mark.parametrize("error", [Forbidden("403"), StoreError("400")], ids=repr)
def test_a_403_on_the_manifest_or_the_line_is_tried_again(store: Watched, error: StoreError) -> None:
    struck: set[str] = set()

    def before(operation: str, name: str) -> None:
        kind = name.rpartition("/")[2] if "manifest" in name else name.partition("/")[0]
        if operation == "create" and kind in ("manifest.json", "line") and kind not in struck:
            struck.add(kind)
            raise error

    async def scenario() -> None:
        async with saving(store) as toy:
            store.before = before
            await toy.save(4)

    play(scenario)
    assert struck == {"manifest.json", "line"}
    assert newest(store) == (4, 1)


def failures_of(logs: Sequence[Mapping[str, Any]]) -> list[float | None]:
    return [entry["again_s"] for entry in logs if entry["event"] == "save_failed"]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - threads, and what is told, set no event
            await asyncio.sleep(0.01)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A save has failed after 0.15 s, and is tried again twice."""
    monkeypatch.setattr("agent.checkpoint.saver._DRAIN_LIMIT_S", 0.15)
    monkeypatch.setattr("agent.checkpoint.saver._AGAIN_S", (0.01, 0.02))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("what", ["part-00001.bin", "manifest.json", "line/", "metrics/"])
def test_a_failed_save_is_tried_again_by_itself_from_where_it_was_and_that_is_told(store: Watched, what: str) -> None:
    sent: list[str] = []

    async def scenario() -> None:
        async with saving(store, attempt=1) as toy:
            toy.log(0, 4)
            with capture_logs() as logs:

                def away(operation: str, name: str) -> None:
                    sent.append(name)
                    if what in name and not failures_of(logs):
                        raise Forbidden("not now")

                store.before = away
                await toy.save(4, reason="milestone")
                assert failures_of(logs) == [0.01]
            assert toy.saver.committed_step == 4

    play(scenario)
    assert sent.count("rolling/000000000004-00001/part-00000.bin") == 1, "it is there, and stays as it is"
    assert newest(store) == (4, 1)
    assert RunRecords(store).metrics() == [line(step) for step in range(4)]


@pytest.mark.usefixtures("impatient")
def test_a_save_that_fails_each_time_is_given_up_and_the_trainer_hears_of_it_once(store: Watched) -> None:
    heard: list[int] = []

    async def on_failure(index: int, staged: Staged, error: Exception) -> None:
        heard.append(staged.step)

    def away(operation: str, name: str) -> None:
        if operation == "create":
            raise Forbidden("never")

    async def scenario() -> None:
        async with saving(store, attempt=1) as toy:
            toy.saver.on_failure = on_failure
            store.before = away
            with capture_logs() as logs:
                await toy.save(4)
            assert failures_of(logs) == [0.01, 0.02, None]
            assert not toy.saver.slots[0].busy

    play(scenario)
    assert heard == [4]


@pytest.mark.parametrize("reason", ["cadence", "milestone"])
def test_an_older_snapshot_makes_way_for_a_newer_one_but_a_milestone_is_kept_all_the_same(
    store: Watched, monkeypatch: pytest.MonkeyPatch, reason: SaveReason
) -> None:
    monkeypatch.setattr("agent.checkpoint.saver._DRAIN_LIMIT_S", 0.15)
    monkeypatch.setattr("agent.checkpoint.saver._AGAIN_S", (0.3,))

    async def scenario() -> None:
        async with saving(store, attempt=1, keep=5) as toy:
            with capture_logs() as logs:

                def away(operation: str, name: str) -> None:
                    if "000000000004" in name and not failures_of(logs):
                        raise Forbidden("not now")

                store.before = away
                await toy.stage(4, 0, reason)
                await until(lambda: bool(failures_of(logs)))
                await toy.save(8, 1)
                assert failures_of(logs) == ([0.3] if reason == "milestone" else [0.3, None])

    play(scenario)
    steps = {entry.step for entry in Checkpoints(store, RUN).entries(timeout=5) if entry.rolling}
    assert steps == ({4, 8} if reason == "milestone" else {8})


def test_in_a_window_a_failed_save_does_not_wait_for_its_next_try(
    store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.checkpoint.saver._DRAIN_LIMIT_S", 0.15)
    monkeypatch.setattr("agent.checkpoint.saver._AGAIN_S", (300.0,))

    async def scenario() -> None:
        async with saving(store, attempt=1) as toy:
            with capture_logs() as logs:

                def away(operation: str, name: str) -> None:
                    if not failures_of(logs):
                        raise Forbidden("not now")

                store.before = away
                await toy.stage(4)
                await until(lambda: bool(failures_of(logs)))
                toy.saver.urge(time.monotonic() + PATIENCE_S)
                assert await toy.saver.wait_committed(step=4, timeout=PATIENCE_S)

    play(scenario)


def test_arenas_that_are_out_of_use_are_unmapped_beside_the_loop(
    store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    close = Arena.close

    def watched(arena: Arena) -> None:
        threads.append(threading.current_thread())
        close(arena)

    async def scenario() -> None:
        async with saving(store, attempt=1) as toy:
            monkeypatch.setattr(Arena, "close", watched)
            await toy.save(4)
            await toy.saver.share(1, [Arena.create(SIZE)])  # the trainer's state has grown
            await toy.stage(8)
            toy.saver.share(0, [])  # while it drains
            await toy.saver.settle(timeout=PATIENCE_S)
            await toy.saver.share(0, [])
            await until(lambda: len(threads) == 3)

    play(scenario)
    assert threading.main_thread() not in threads
