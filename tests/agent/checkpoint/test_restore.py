"""Whatever happened to the newest checkpoint, a trainer starts from the newest that is whole, and somebody is told."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from spot_training.protocol.arena import ArenaError
from structlog.testing import capture_logs
from structlog.typing import EventDict

from agent.checkpoint.bucket import Checkpoints
from agent.checkpoint.manifest import folder_name
from agent.checkpoint.restore import Fetched, RestoreError, Stopped, fetch_newest
from agent.store import Store, Unavailable, open_store
from agent.store.formats import NewerFormatError
from agent.store.names import ROLLING
from agent.telemetry.ledger import Resume
from agent.trainer.launch import fetch_state
from tests.agent.checkpoint.saving import PART, PATIENCE_S, RUN, Toy, arena_files, content, newest, saving
from tests.agent.stores import Watched

FOLDER = f"{ROLLING}{folder_name(8, 1)}"
MANIFEST = f"{FOLDER}/manifest.json"
SECOND = f"{FOLDER}/part-00001.bin"


@dataclass
class Clock:
    """Time passes when somebody sleeps, or when a test says so."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("agent.checkpoint.restore.time", clock)
    return clock


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Two whole checkpoints, of steps 4 and 8."""
    monkeypatch.setattr("agent.checkpoint.drain.MIN_PART", PART)
    monkeypatch.setattr("agent.checkpoint.drain.MAX_PART", PART)
    store = Watched(open_store(f"file://{tmp_path}"))

    async def save() -> None:
        async with saving(store) as toy:
            await toy.save(4)
            await toy.save(8, 1)

    asyncio.run(save())
    return store


def fetch(store: Store, *, timeout: float = PATIENCE_S) -> Fetched | None:
    return fetch_newest(Checkpoints(store, RUN), timeout=timeout, connections=2)


def on_disk(store: Watched, name: str) -> Path:
    return Path(store.url.removeprefix("file://"), name)


def flip(store: Watched, name: str) -> None:
    """As a disk does it: what the store knows of the object stays as it was."""
    path = on_disk(store, name).resolve()
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0x10
    path.write_bytes(damaged)


def cut(store: Watched, name: str) -> None:
    path = on_disk(store, name).resolve()
    path.write_bytes(path.read_bytes()[:-1])


def replace(store: Watched, name: str, change: Callable[[bytes], bytes]) -> None:
    """A sound object, and not the one that the manifest speaks of."""
    store.store.replace(name, change(store.store.read(name, timeout=5)), timeout=5)


def edit(**changes: Any) -> Callable[[Watched], None]:
    return lambda store: replace(store, MANIFEST, lambda raw: json.dumps(json.loads(raw) | changes).encode())


def without_its_last_part(raw: bytes) -> bytes:
    values = json.loads(raw)
    values["ranks"][0]["parts"].pop()
    return json.dumps(values).encode()


DAMAGE: dict[str, Callable[[Watched], None]] = {
    "a flipped byte": lambda store: flip(store, SECOND),
    "a byte cut off": lambda store: cut(store, SECOND),
    "another content of the same length": lambda store: replace(store, SECOND, lambda raw: bytes(len(raw))),
    "a shorter content": lambda store: replace(store, SECOND, lambda raw: raw[:-1]),
    "a missing part": lambda store: store.store.delete(SECOND, timeout=5),
    "a flipped byte in the manifest": lambda store: flip(store, MANIFEST),
    "half a manifest": lambda store: replace(store, MANIFEST, lambda raw: raw[: len(raw) // 2]),
    "a manifest of another run": edit(run_id="other"),
    "a manifest with a rank too few": edit(world_size=2),
    "a manifest with a part too few": lambda store: replace(store, MANIFEST, without_its_last_part),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_bad_checkpoint_means_the_next_older_one_said_loudly(
    store: Watched, damage: Callable[[Watched], None]
) -> None:
    damage(store)
    before, files = store.names(), arena_files()
    with capture_logs() as said:
        found = fetch(store)
    assert found
    assert found.manifest.step == 4
    assert bytes(found.arena.view) == content(4)
    assert [(event["event"], event["log_level"], event["folder"], event["step"]) for event in said] == [
        ("checkpoint_bad", "error", FOLDER, 8)
    ]
    assert found.bad == [f"{FOLDER}: {said[0]['error']}"]
    found.arena.close()
    assert arena_files() == files, "nothing is left of the bad one in memory"
    assert store.names() == before, "and nothing was deleted"


def test_parts_without_a_manifest_are_no_checkpoint_and_nothing_bad(store: Watched) -> None:
    store.store.create(f"{ROLLING}{folder_name(12, 1)}/part-00000.bin", b"torn", timeout=5)
    with capture_logs() as said:
        assert newest(store) == (8, 1)
    assert said == []


def test_where_a_newer_version_has_written_nobody_falls_back(store: Watched) -> None:
    edit(format=3)(store)
    with pytest.raises(NewerFormatError, match="upgrade spot-training on this VM"):
        fetch(store)
    edit(format=1)(store)
    assert newest(store) == (8, 1)


def test_a_run_without_checkpoints_begins_at_the_beginning(tmp_path: Path) -> None:
    assert fetch(open_store(f"file://{tmp_path}/empty")) is None


def test_where_every_checkpoint_is_bad_the_run_does_not_begin_again_in_silence(store: Watched) -> None:
    flip(store, SECOND)
    store.store.delete(f"{ROLLING}{folder_name(4, 1)}/part-00000.bin", timeout=5)
    files = arena_files()
    with pytest.raises(RestoreError) as error:
        fetch(store)
    for step in (4, 8):
        assert f"{ROLLING}{folder_name(step, 1)}: " in str(error.value)
    assert arena_files() == files


@pytest.mark.parametrize("name", ["line/", MANIFEST, SECOND], ids=["list", "manifest", "part"])
def test_an_outage_is_waited_for_and_never_taken_for_a_bad_checkpoint(store: Watched, clock: Clock, name: str) -> None:
    left = [5]

    def outage(_: str, what: str) -> None:
        if what == name and left[0] > 0:
            left[0] -= 1
            raise Unavailable("no answer")

    store.before = outage
    files = arena_files()
    with capture_logs() as said:
        found = fetch(store)
    assert found
    assert (found.manifest.step, found.bad, left) == (8, [], [0])
    assert [event["event"] for event in said] == ["restore_waits"] * 5
    assert len(clock.slept) == 5
    found.arena.close()
    assert arena_files() == files, "not one arena for each try"


def test_waiting_for_a_bucket_grows_longer_is_jittered_and_ends(store: Watched, clock: Clock) -> None:
    def outage(operation: str, name: str) -> None:
        clock.now += 1.0
        raise Unavailable("no answer")

    store.before = outage
    begun = clock.now
    with pytest.raises(RestoreError, match="no checkpoint could be fetched within 120 s: no answer"):
        fetch(store, timeout=120.0)
    assert clock.now - begun <= 120.0
    assert sum(clock.slept) > 60.0, "a bucket that can't be reached is not asked in a tight loop"
    assert max(clock.slept) <= 10.0
    assert len(set(clock.slept)) == len(clock.slept)
    store.before = lambda operation, name: None
    assert newest(store) == (8, 1)


def test_no_memory_for_a_checkpoint_is_no_reason_to_take_an_older_one(
    store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spot_training.protocol.arena.available_memory", lambda: 1000)
    with pytest.raises(RestoreError, match=r"step 8.*use a machine with more memory") as error:
        fetch(store)
    assert isinstance(error.value.__cause__, ArenaError)


def launch(store: Watched, prepare: Callable[[Toy], Any] | None = None) -> tuple[Resume, bytes, list[EventDict]]:
    """What a trainer that starts next will find, after what `prepare` has done to a saver of the same VM."""

    async def scenario() -> tuple[Resume, bytes, list[EventDict]]:
        async with saving(store, attempt=1) as toy:
            toy.saver.committed_step = 8
            if prepare:
                await prepare(toy)
            resume = Resume(RUN, 2, "vm", 0.0)
            with capture_logs() as said:
                staged = await fetch_state(toy.saver, resume)
            assert staged
            assert (staged.step, staged.state) == (resume.step, {"step": resume.step})
            assert (toy.saver.attempt, toy.saver.staged_step) == (2, resume.step)
            assert toy.saver.slots.newest() == (staged.arena, staged)
            restored = bytes(toy.saver.slots[staged.arena].arena.view)
            await toy.saver.settle(timeout=PATIENCE_S)
            return resume, restored, said

    return asyncio.run(scenario())


def test_a_fetch_that_nobody_waits_for_any_more_ends_before_the_next_one_begins(store: Watched) -> None:
    """A trainer that failed while its checkpoint came left that fetch running beside the next one: twice the memory."""
    arenas: list[int] = []
    coming, go_on = threading.Event(), threading.Event()

    def waits(operation: str, name: str) -> None:
        if operation == "read" and "part-" in name:
            arenas.append(arena_files())
            coming.set()
            assert go_on.wait(PATIENCE_S)

    async def scenario() -> None:
        before = arena_files()
        async with saving(store, attempt=1) as toy:
            toy.saver.committed_step = 8
            store.before = waits
            failed = asyncio.create_task(fetch_state(toy.saver, Resume(RUN, 2, "vm", 0.0)))
            await asyncio.to_thread(coming.wait, PATIENCE_S)
            failed.cancel()
            again = asyncio.create_task(fetch_state(toy.saver, Resume(RUN, 3, "vm", 0.0)))
            await asyncio.wait({failed, again}, timeout=0.1)
            go_on.set()
            staged = await again
            assert staged
            assert staged.step == 8
            assert max(arenas) - before == 2, "what the first one fetched goes before the second one begins"

    asyncio.run(scenario())


def test_a_fetch_that_is_to_stop_reads_no_further_part(store: Watched) -> None:
    stop = threading.Event()
    store.before = lambda operation, name: stop.set() if "part-" in name else None
    store.operations.clear()
    with pytest.raises(Stopped):
        fetch_newest(Checkpoints(store, RUN), timeout=PATIENCE_S, connections=1, stop=stop)
    assert sum("part-" in name for _, name in store.operations) == 1
    assert stop.is_set()


def test_a_snapshot_in_memory_that_is_newer_than_the_bucket_is_taken_and_sent(store: Watched) -> None:
    async def lost_on_its_way(toy: Toy) -> None:
        store.before = no_upload
        toy.saver.urge(time.monotonic())
        await toy.save(12)
        toy.saver.urge(None)
        store.before = lambda operation, name: None

    def no_upload(operation: str, name: str) -> None:
        if operation == "create":
            raise Unavailable("no answer")

    resume, restored, said = launch(store, lost_on_its_way)
    assert (resume.source, resume.step, restored) == ("memory", 12, content(12))
    assert ("fetched", "memory") in [(event["event"], event.get("source")) for event in said]
    assert not any(operation == "read" and "part-" in name for operation, name in store.operations), "no download"
    assert newest(store) == (12, 2), "and it is safe now"


def test_a_snapshot_that_was_not_whole_is_not_taken(store: Watched) -> None:
    async def killed_while_staging(toy: Toy) -> None:
        toy.saver.staging(0, 12, PART)
        toy.arenas[0].view[:PART] = content(12)[:PART]
        await toy.saver.give_up_unstaged("the trainer ended")

    resume, restored, _ = launch(store, killed_while_staging)
    assert (resume.source, resume.step, restored) == ("bucket", 8, content(8))


def test_a_snapshot_in_memory_that_is_older_than_the_bucket_is_not_taken(store: Watched) -> None:
    async def an_older_one(toy: Toy) -> None:
        toy.arenas[0].view[:] = content(6)
        toy.saver.slots[0].staged = toy.staged(6)

    resume, restored, _ = launch(store, an_older_one)
    assert (resume.source, resume.step, restored) == ("bucket", 8, content(8))


def test_what_was_passed_over_is_in_the_record_and_the_run_goes_on_from_there(store: Watched) -> None:
    flip(store, SECOND)
    resume, restored, said = launch(store)
    assert (resume.source, resume.step, restored) == ("bucket", 4, content(4))
    assert [event["event"] for event in said] == ["checkpoint_bad", "fetched"]
    assert len(resume.passed_over) == 1
    assert FOLDER in resume.passed_over[0]
    assert "fetched" in resume.phases_s
