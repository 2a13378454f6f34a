"""Draining: when parts are sent, and how large they are."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spot_training.protocol.arena import Arena

from agent.checkpoint.drain import MAX_PART, MIN_PART, Drain, Uploader, part_size_for
from agent.store import open_store

SIZE = 3 * MIN_PART


@pytest.fixture
def uploader(tmp_path: Path) -> Iterator[Uploader]:
    uploader = Uploader(open_store(f"file://{tmp_path}"), connections=2)
    yield uploader
    uploader.close()


@pytest.fixture
def arena() -> Iterator[Arena]:
    arena = Arena.create(SIZE)
    arena.view[:] = os.urandom(SIZE)
    yield arena
    arena.close()


def begin(uploader: Uploader, arena: Arena, *, urgent: bool) -> Drain:
    deadline = time.monotonic() + 60
    return uploader.begin(arena, step=1, folder="f", size=SIZE, deadline=deadline, urgent=urgent)


def stored(uploader: Uploader, drain: Drain) -> bytes:
    parts = drain.done.result(30)
    return b"".join(uploader.store.read(part.name, timeout=10) for part in parts)


def test_an_urgent_drain_begins_with_the_first_bytes_that_are_final(uploader: Uploader, arena: Arena) -> None:
    drain = begin(uploader, arena, urgent=True)
    uploader.advance(drain, SIZE - 1)
    assert 0 < drain.queued < len(drain.pieces)
    uploader.advance(drain, SIZE)
    assert stored(uploader, drain) == bytes(arena.view)


def test_a_drain_at_leisure_leaves_the_cores_to_the_copy(uploader: Uploader, arena: Arena) -> None:
    drain = begin(uploader, arena, urgent=False)
    uploader.advance(drain, SIZE - 1)
    assert drain.queued == 0
    uploader.advance(drain, SIZE)
    assert stored(uploader, drain) == bytes(arena.view)


def test_a_window_that_opens_during_the_copy_lets_the_drain_begin(uploader: Uploader, arena: Arena) -> None:
    drain = begin(uploader, arena, urgent=False)
    uploader.advance(drain, SIZE - 1)
    uploader.urge(drain, deadline=time.monotonic() + 60)
    assert 0 < drain.queued < len(drain.pieces)
    uploader.advance(drain, SIZE)
    assert stored(uploader, drain) == bytes(arena.view)


@given(size=st.integers(1, 1 << 40), connections=st.integers(1, 64))
def test_every_connection_has_the_same_share(size: int, connections: int) -> None:
    part = part_size_for(size, connections)
    assert MIN_PART <= part <= MAX_PART
    rounds = -(-size // (part * connections))
    longest = rounds * part  # what the busiest connection sends
    assert longest <= size / connections + rounds * 4096 + 1 or part == MIN_PART
