"""Drains in company and in trouble: who goes first, what is ridden out, and how each of them ends."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from spot_training.protocol.arena import Arena

from agent.checkpoint.drain import Abandoned, Drain, Uploader
from agent.checkpoint.source import cut
from agent.store import Forbidden, StoreError, Unavailable, open_store
from tests.agent.stores import Watched

PATIENCE_S = 20.0
PART = 4096
PARTS = 8


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr("agent.checkpoint.drain.MIN_PART", PART)
    return Watched(open_store(f"file://{tmp_path}"))


@pytest.fixture
def arena() -> Iterator[Arena]:
    arena = Arena.create(PARTS * PART - 100)
    arena.view[:] = os.urandom(arena.size)
    yield arena
    arena.close()


@pytest.fixture
def build(store: Watched) -> Iterator[Callable[..., Uploader]]:
    made: list[Uploader] = []

    def build(connections: int = 4, background: int = 2) -> Uploader:
        made.append(Uploader(store, connections=connections, background=background))
        return made[-1]

    yield build
    for uploader in made:
        uploader.close()


def begin(uploader: Uploader, arena: Arena, folder: str = "f", *, urgent: bool = False, within: float = 60.0) -> Drain:
    """A drain in parts of one page, whatever the number of connections."""
    deadline = time.monotonic() + within
    return uploader.begin(
        arena, step=1, folder=folder, size=arena.size, deadline=deadline, urgent=urgent, pieces=cut(arena.size, PART)
    )


def failing(times: int, error: Exception, *, late: bool = False) -> Callable[[str, str], None]:
    """Fail the first `times` operations on each name; `late`: what was asked for has been done all the same."""
    left: dict[str, int] = {}
    lock = threading.Lock()

    def hook(operation: str, name: str) -> None:
        with lock:
            left[name] = left.get(name, times) - 1
            if left[name] < 0:
                return
        raise error

    return hook


def assert_whole(store: Watched, drain: Drain, arena: Arena) -> None:
    parts = drain.done.result(PATIENCE_S)
    assert [part.offset for part in parts] == list(range(0, arena.size, PART))
    assert b"".join(store.store.read(part.name, timeout=5.0) for part in parts) == bytes(arena.view)


def test_parts_are_in_the_bucket_before_the_snapshot_is_whole(
    build: Callable[..., Uploader], store: Watched, arena: Arena
) -> None:
    arrived = threading.Semaphore(0)
    store.after = lambda operation, name: arrived.release()
    uploader = build()
    drain = begin(uploader, arena, urgent=True)
    uploader.advance(drain, 2 * PART + 10)
    for _ in range(2):
        assert arrived.acquire(timeout=PATIENCE_S)
    assert store.names() == {"f/part-00000.bin", "f/part-00001.bin"}
    assert not drain.done.done()
    uploader.advance(drain, arena.size)
    assert_whole(store, drain, arena)


def test_an_urgent_drain_goes_before_what_waits_and_with_every_connection(
    build: Callable[..., Uploader], store: Watched, arena: Arena
) -> None:
    gate, stuck = threading.Event(), threading.Semaphore(0)

    def hold(operation: str, name: str) -> None:
        stuck.release()
        assert gate.wait(PATIENCE_S)

    store.before = hold
    uploader = build(connections=4, background=2)
    leisure = begin(uploader, arena, "leisure")
    uploader.advance(leisure, arena.size)
    for _ in range(2):
        assert stuck.acquire(timeout=PATIENCE_S)
    assert not stuck.acquire(timeout=0.02), "training keeps the cores: two connections, no more"
    urgent = begin(uploader, arena, "urgent", urgent=True)
    uploader.advance(urgent, arena.size)
    for _ in range(2):
        assert stuck.acquire(timeout=PATIENCE_S)
    gate.set()
    assert_whole(store, urgent, arena)
    assert_whole(store, leisure, arena)
    order = [name.partition("/")[0] for _, name in store.operations]
    assert order[4 : 2 + PARTS] == ["urgent"] * (PARTS - 2)


def test_a_drain_that_becomes_urgent_goes_before_the_others(
    build: Callable[..., Uploader], store: Watched, arena: Arena
) -> None:
    gate, stuck = threading.Event(), threading.Event()

    def hold(operation: str, name: str) -> None:
        stuck.set()
        assert gate.wait(PATIENCE_S)

    store.before = hold
    uploader = build(connections=1, background=1)
    drains = [begin(uploader, arena, folder) for folder in ("a", "b")]
    for drain in drains:
        uploader.advance(drain, arena.size)
    assert stuck.wait(PATIENCE_S)
    uploader.urge(drains[1], deadline=time.monotonic() + 60)
    gate.set()
    for drain in drains:
        assert_whole(store, drain, arena)
    order = [name.partition("/")[0] for _, name in store.operations]
    assert order == ["a"] + ["b"] * PARTS + ["a"] * (PARTS - 1)


@pytest.mark.parametrize("late", [False, True], ids=["nothing was done", "only the answer was lost"])
def test_an_outage_is_ridden_out_and_no_part_is_stored_or_counted_twice(
    build: Callable[..., Uploader], store: Watched, arena: Arena, late: bool
) -> None:
    hook = failing(3, Unavailable("no answer"))
    if late:
        store.after = hook
    else:
        store.before = hook
    uploader = build()
    drain = begin(uploader, arena)
    uploader.advance(drain, arena.size)
    assert_whole(store, drain, arena)
    assert len(store.names()) == PARTS


def test_an_outage_that_lasts_ends_the_drain_at_its_deadline(
    build: Callable[..., Uploader], store: Watched, arena: Arena
) -> None:
    store.before = failing(1 << 30, Unavailable("no answer"))
    uploader = build()
    drain = begin(uploader, arena, within=0.05)
    uploader.advance(drain, arena.size)
    with pytest.raises(Unavailable):
        drain.done.result(PATIENCE_S)
    assert time.monotonic() >= drain.deadline


def test_a_window_that_opens_brings_the_deadline_nearer(
    build: Callable[..., Uploader], store: Watched, arena: Arena
) -> None:
    store.before = failing(1 << 30, Unavailable("no answer"))
    uploader = build()
    drain = begin(uploader, arena, within=3600.0)
    uploader.advance(drain, arena.size)
    uploader.urge(drain, deadline=time.monotonic() + 0.05)
    with pytest.raises(Unavailable):
        drain.done.result(PATIENCE_S)
    later = begin(uploader, arena, within=0.0)
    uploader.urge(later, deadline=time.monotonic() + 3600.0)
    assert later.deadline <= time.monotonic(), "and never farther"


@pytest.mark.parametrize("error", [RuntimeError("a bug")], ids=repr)
def test_what_no_retry_can_mend_ends_the_drain_at_once_and_the_uploader_lives_on(
    build: Callable[..., Uploader], store: Watched, arena: Arena, error: Exception
) -> None:
    store.before = failing(1, error)
    uploader = build(connections=1, background=1)
    drain = begin(uploader, arena)
    uploader.advance(drain, arena.size)
    with pytest.raises(type(error), match=str(error)):
        drain.done.result(PATIENCE_S)
    again = begin(uploader, arena, "again")
    store.before = lambda operation, name: None
    uploader.advance(again, arena.size)
    assert_whole(store, again, arena)
    assert {name for name in store.names() if name.startswith("f/")} == set(), "the rest was not sent any more"


@pytest.mark.parametrize("error", [Forbidden("403"), StoreError("400")], ids=repr)
def test_nothing_that_the_bucket_says_is_final_before_the_deadline(
    build: Callable[..., Uploader], store: Watched, arena: Arena, error: StoreError
) -> None:
    store.before = failing(2, error)
    uploader = build(connections=1, background=1)
    drain = begin(uploader, arena)
    uploader.advance(drain, arena.size)
    assert_whole(store, drain, arena)


def test_a_part_whose_name_is_spent_gets_another_one(
    build: Callable[..., Uploader], store: Watched, arena: Arena
) -> None:
    store.store.create("f/part-00000.bin", b"left by another save", timeout=5)
    uploader = build(connections=1, background=1)
    drain = begin(uploader, arena)
    uploader.advance(drain, arena.size)
    parts = drain.done.result(PATIENCE_S)
    assert parts[0].name != "f/part-00000.bin"
    assert store.read("f/part-00000.bin", timeout=5) == b"left by another save"
    assert b"".join(store.read(part.name, timeout=5) for part in parts) == bytes(arena.view)


def test_an_abandoned_drain_ends_and_sends_no_further_part(
    build: Callable[..., Uploader], store: Watched, arena: Arena
) -> None:
    gate, stuck = threading.Event(), threading.Event()

    def hold(operation: str, name: str) -> None:
        stuck.set()
        assert gate.wait(PATIENCE_S)

    store.before = hold
    uploader = build(connections=1, background=1)
    drain = begin(uploader, arena)
    uploader.advance(drain, arena.size)
    assert stuck.wait(PATIENCE_S)
    uploader.abandon(drain, "the trainer ended")
    with pytest.raises(Abandoned, match="the trainer ended"):
        drain.done.result(0)
    gate.set()
    other = begin(uploader, arena, "other")
    uploader.advance(other, arena.size)
    assert_whole(store, other, arena)
    assert len([name for name in store.names() if name.startswith("f/")]) == 1


def test_an_urgent_drain_that_has_ended_leaves_the_cores_to_training_again(
    build: Callable[..., Uploader], store: Watched, arena: Arena
) -> None:
    uploader = build(connections=4, background=1)
    for end in ("whole", "abandoned", "urged late"):
        drain = begin(uploader, arena, end, urgent=end != "urged late")
        if end == "abandoned":
            uploader.abandon(drain, "no time")
        else:
            uploader.advance(drain, arena.size)
            drain.done.result(PATIENCE_S)
            uploader.urge(drain, deadline=time.monotonic())
    running, most = 0, 0
    lock = threading.Lock()

    def enter(operation: str, name: str) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.001)

    def leave(operation: str, name: str) -> None:
        nonlocal running
        with lock:
            running -= 1

    store.before, store.after = enter, leave
    drain = begin(uploader, arena, "leisure")
    uploader.advance(drain, arena.size)
    assert_whole(store, drain, arena)
    assert most == 1


def test_closing_while_an_arena_is_drained_ends_the_drain_not_the_thread(
    build: Callable[..., Uploader], store: Watched, arena: Arena
) -> None:
    gone = Arena.create(PARTS * PART)
    uploader = build(connections=1, background=1)
    drain = begin(uploader, gone)
    gone.close()
    uploader.advance(drain, gone.size)
    with pytest.raises(ValueError, match="released"):
        drain.done.result(PATIENCE_S)
    other = begin(uploader, arena, "other")
    uploader.advance(other, arena.size)
    assert_whole(store, other, arena)
