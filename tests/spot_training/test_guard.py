"""What the guard promises: no snapshot inside an update, no update inside a snapshot, and nobody waits for ever."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spot_training.guard import Guard
from spot_training.rng import RngState
from spot_training.state import Boundary

PATIENCE_S = 20.0
GLANCE_S = 0.02  # how long it is looked whether a thread that must wait goes on


def boundary(step: int) -> Boundary:
    return Boundary(step, RngState({}, (), None), {"step": torch.tensor(step)}, {}, {})


def update(guard: Guard, *, wanted: bool = False) -> int:
    """One update, as the training loop does it; returns the step it came to."""
    guard.close()
    guard.open(boundary(guard.boundary.step + 1), wanted=wanted)
    return guard.boundary.step


def in_background(work: Callable[[], int]) -> Future[int]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(work)
    pool.shutdown(wait=False)
    return future


def is_waiting(future: Future[int]) -> bool:
    try:
        future.result(GLANCE_S)
    except TimeoutError:
        return True
    return False


def test_a_snapshot_waits_for_an_update_and_is_of_the_boundary_after_it() -> None:
    guard = Guard(boundary(0))

    def read() -> int:
        with guard.reading(timeout=PATIENCE_S) as found:
            return found.step

    guard.close()
    reading = in_background(read)
    assert is_waiting(reading)
    guard.open(boundary(1))
    assert reading.result(PATIENCE_S) == 1


def test_a_snapshot_does_not_wait_longer_than_it_may() -> None:
    guard = Guard(boundary(0))
    guard.close()
    with (
        pytest.raises(TimeoutError, match=r"step 0 was behind its update.*top of the loop"),
        guard.reading(timeout=0.0),
    ):
        pass


def test_an_update_waits_for_a_snapshot_that_is_being_copied() -> None:
    guard = Guard(boundary(0))
    with guard.reading(timeout=None) as found:
        updating = in_background(lambda: update(guard))
        assert is_waiting(updating)
        assert found is guard.boundary
    assert updating.result(PATIENCE_S) == 1


def test_an_update_waits_for_a_wanted_snapshot_of_exactly_the_boundary_before_it() -> None:
    guard = Guard(boundary(0))
    update(guard, wanted=True)
    updating = in_background(lambda: update(guard))
    assert is_waiting(updating)
    with guard.reading(timeout=0.0) as found:  # somebody else's, an emergency's: the wanted one is still to come
        assert found.step == 1
    assert is_waiting(updating)
    with guard.reading(timeout=0.0) as found:
        assert found.step == 1
    guard.release()
    assert updating.result(PATIENCE_S) == 2


def test_an_iteration_without_an_update_waits_at_its_top_for_what_is_wanted() -> None:
    guard = Guard(boundary(0))
    guard.open(boundary(1), wanted=True)

    def next_top() -> int:
        guard.open(boundary(2))
        return guard.boundary.step

    opening = in_background(next_top)
    assert is_waiting(opening)
    guard.release()
    assert opening.result(PATIENCE_S) == 2


def test_held_no_further_update_begins_and_snapshots_still_can() -> None:
    guard = Guard(boundary(3))
    with guard.reading(timeout=None):
        guard.hold()
    entered = threading.Event()

    def go_on() -> None:
        guard.close()
        entered.set()

    threading.Thread(target=go_on, daemon=True).start()
    assert not entered.wait(GLANCE_S)
    guard.release()
    assert not entered.wait(GLANCE_S)
    with guard.reading(timeout=0.0) as found:
        assert found.step == 3


@settings(max_examples=25, deadline=None)
@given(
    wanted=st.lists(st.booleans(), min_size=1, max_size=30),
    others=st.lists(st.integers(0, 30), max_size=3),
    seed=st.integers(0, 1 << 16),
)
def test_no_schedule_of_loop_saves_and_emergencies_mixes_two_steps_or_stands_still(
    wanted: list[bool], others: list[int], seed: int
) -> None:
    """The loop, the stager with its wanted saves, and threads that save whenever they like."""
    guard = Guard(boundary(0))
    chance = random.Random(seed)
    pauses = [chance.choice([0.0, 0.0, 1e-5, 1e-4]) for _ in range(64)]
    state = [0, 0]  # both are the step, except in an update
    orders: list[int] = []
    ordered = threading.Semaphore(0)
    seen: list[tuple[int, int]] = []  # (step that was wanted, step that was read)
    wrong: list[str] = []

    def read(pause: float) -> int:
        with guard.reading(timeout=PATIENCE_S) as found:
            first = tuple(state)
            time.sleep(pause)
            if not (first == tuple(state) == (found.step, found.step)):
                wrong.append(f"read {first} and {state} at {found.step}")
            return found.step

    def loop() -> None:
        for at, want in enumerate(wanted):
            guard.close()
            state[0] = at + 1
            time.sleep(pauses[at % 64])
            state[1] = at + 1
            guard.open(boundary(at + 1), wanted=want)
            if want:
                orders.append(at + 1)
                ordered.release()

    def stager() -> None:
        for _ in range(sum(wanted)):
            assert ordered.acquire(timeout=PATIENCE_S)
            step = orders.pop(0)
            try:
                seen.append((step, read(pauses[step % 64])))
            finally:
                guard.release()

    def other(count: int) -> None:
        for at in range(count):
            read(pauses[at])

    threads = [threading.Thread(target=loop), threading.Thread(target=stager)]
    threads += [threading.Thread(target=other, args=(count,)) for count in others]
    for thread in threads:
        thread.daemon = True
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "somebody waits for ever"
    assert wrong == []
    assert seen == [(step, step) for step, want in enumerate(wanted, 1) if want]
