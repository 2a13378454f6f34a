"""Attempts: one number, one claimant; whoever sees another's newer number stops."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.checkpoint.line import PREFIX, AttemptError, claim_attempt, newest_attempt, superseded_by
from agent.store import Unavailable, open_store
from tests.agent.stores import Watched

T = 10.0


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    return Watched(open_store(f"file://{tmp_path}"))


def claim(store: Watched, claimant: str) -> int:
    return claim_attempt(store, claimant=claimant, facts={"vm": f"{claimant}'s"}, timeout=T)


def body(store: Watched, number: int) -> dict[str, object]:
    found: dict[str, object] = json.loads(store.read(f"{PREFIX}{number:06d}.json", timeout=T))
    return found


def test_attempts_are_numbered_from_one_and_say_who_claimed_them(store: Watched) -> None:
    assert newest_attempt(store, timeout=T) == 0
    for number, claimant in ((1, "a"), (2, "a"), (3, "b")):
        assert claim(store, claimant) == number
        assert body(store, number) == {"attempt": number, "claimant": claimant, "vm": f"{claimant}'s"}
        assert newest_attempt(store, timeout=T) == number


def test_the_highest_number_counts_whatever_else_lies_there(store: Watched) -> None:
    for name in ("000007.json", "1000000.json", "notes.txt", "000009.json.old", "x000008.json"):
        store.create(f"{PREFIX}{name}", b'{"claimant": "b"}', timeout=T)
    assert newest_attempt(store, timeout=T) == 1000000
    assert claim(store, "a") == 1000001
    assert superseded_by(store, 7, claimant="b", timeout=T) == 1000001
    assert superseded_by(store, 7, claimant="a", timeout=T) == 1000000


def test_of_claimants_that_race_for_a_number_exactly_one_gets_it(store: Watched) -> None:
    """All of them have seen the same newest attempt before any of them claims the next."""
    rounds, claimants = 5, 6
    together = threading.Barrier(claimants)
    waited: set[int] = set()

    def before(operation: str, name: str) -> None:
        if operation == "create" and threading.get_ident() not in waited:
            waited.add(threading.get_ident())
            together.wait(T)

    store.before = before
    won: dict[int, str] = {}
    for _ in range(rounds):
        waited.clear()
        with ThreadPoolExecutor(claimants) as pool:
            names = [f"vm-{number}" for number in range(claimants)]
            numbers = list(pool.map(lambda name: claim(store, name), names))
        assert len(set(numbers)) == claimants
        won |= dict(zip(numbers, names, strict=True))
    assert sorted(won) == list(range(1, rounds * claimants + 1)), "no number twice, none left out"
    assert {number: body(store, number)["claimant"] for number in won} == won


def test_a_claimant_that_always_comes_second_gives_up_and_says_what_to_do(store: Watched) -> None:
    faster = open_store(store.url)

    def before(operation: str, name: str) -> None:
        if operation == "create":
            claim_attempt(faster, claimant="faster", facts={}, timeout=T)

    store.before = before
    with pytest.raises(AttemptError, match=r"more than one VM is starting this run.*Give each run its own run_id"):
        claim(store, "slower")
    assert all(body(store, n)["claimant"] == "faster" for n in range(1, newest_attempt(faster, timeout=T) + 1))


def test_a_claim_whose_answer_was_lost_is_its_claimants_and_does_not_fence_it_out(store: Watched) -> None:
    def after(operation: str, name: str) -> None:
        if operation == "create":
            raise Unavailable("no answer")

    store.after = after
    with pytest.raises(Unavailable):
        claim(store, "a")
    store.after = lambda operation, name: None
    assert claim(store, "a") == 2
    assert superseded_by(store, 1, claimant="a", timeout=T) is None


def test_only_another_claimants_newer_attempt_supersedes(store: Watched) -> None:
    def superseded(attempt: int) -> int | None:
        return superseded_by(store, attempt, claimant="a", timeout=T)

    assert claim(store, "b") == 1
    assert claim(store, "a") == 2
    assert superseded(2) is None, "an older one of somebody else is no rival"
    assert claim(store, "a") == 3
    assert superseded(2) is None, "nor is our own next one: its trainer is ours"
    assert claim(store, "b") == 4
    assert superseded(2) == superseded(3) == 4
    assert claim(store, "a") == 5
    assert superseded(3) == 4, "what we claimed since does not hide it"
    assert superseded(5) is None
    assert claim(store, "c") == 6
    assert superseded(5) == superseded(2) == 6, "the newest"


def test_a_bucket_that_gives_no_answer_does_not_say_that_all_is_well(store: Watched) -> None:
    claim(store, "a")
    claim(store, "b")

    def before(operation: str, name: str) -> None:
        if operation == "read":
            raise Unavailable("no answer")

    store.before = before
    with pytest.raises(Unavailable):
        superseded_by(store, 1, claimant="a", timeout=T)
