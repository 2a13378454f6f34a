"""The line: one, whoever claims, commits and sleeps between, and whatever answers are lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from agent.checkpoint.bucket import Checkpoints
from agent.checkpoint.drain import Uploader
from agent.checkpoint.line import AttemptError, Line, LineEntry, RunComplete, Superseded
from agent.checkpoint.saver import Saver
from agent.store import StoreError, Unavailable, open_store
from agent.store.formats import LINE_FORMAT, NewerFormatError
from infra.local.bucket import RunRecords
from tests.agent.stores import Watched

T = 10.0


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    return Watched(open_store(f"file://{tmp_path}"))


def claim(line: Line, claimant: str) -> LineEntry:
    return line.claim(claimant=claimant, facts={"vm": f"{claimant}'s"}, found=list, timeout=T)


def commit(line: Line, entry: LineEntry, step: int, **more: object) -> LineEntry:
    return line.commit(
        attempt=entry.attempt, claimant=entry.claimant, folder=f"rolling/{step}", step=step, timeout=T, **more  # type: ignore[arg-type]
    )  # fmt: skip


def test_attempts_are_numbered_from_one_and_say_who_claimed_them(store: Watched) -> None:
    for number, claimant in ((1, "a"), (2, "a"), (3, "b")):
        entry = claim(Line(store), claimant)
        assert (entry.attempt, entry.claimant, entry.facts) == (number, claimant, {"vm": f"{claimant}'s"})
        assert Line(store).newest(timeout=T) == entry


def test_the_newest_entry_is_the_first_by_name_so_that_one_listing_of_one_object_finds_it(store: Watched) -> None:
    line = Line(store)
    mine = claim(line, "a")
    for step in range(1, 13):
        commit(line, mine, step)
    names = [stored.name for stored in store.list("line/", timeout=T)]
    newest = Line(store).newest(timeout=T)
    assert newest
    assert (newest.name, newest.step) == (names[0], 12)
    assert [entry.step for entry in Line(store).entries(timeout=T)] == list(range(13))


def test_of_claimants_that_race_for_a_number_exactly_one_gets_it(store: Watched) -> None:
    """All of them have seen the same newest entry before any of them claims the next."""
    claimants = 6
    together = threading.Barrier(claimants)
    waited: set[int] = set()

    def before(operation: str, name: str) -> None:
        if operation == "create" and threading.get_ident() not in waited:
            waited.add(threading.get_ident())
            together.wait(T)

    store.before = before
    with ThreadPoolExecutor(claimants) as pool:
        numbers = list(pool.map(lambda each: claim(Line(store), str(each)).attempt, range(claimants)))
    assert sorted(numbers) == list(range(1, claimants + 1))


def test_several_vms_that_fight_for_a_run_are_told_so(store: Watched) -> None:
    faster = Line(store.store)

    def before(operation: str, name: str) -> None:
        if operation == "create":
            claim(faster, "faster")

    store.before = before
    with pytest.raises(AttemptError, match=r"more than one VM starts this run.*Give each run its own run_id"):
        claim(Line(store), "slow")


def test_who_slept_while_another_claimed_commits_nothing_even_years_later(store: Watched) -> None:
    old, new = Line(store), Line(store)
    mine = claim(old, "old VM")
    commit(old, mine, 4)
    theirs = claim(new, "new VM")
    assert theirs.checkpoints == ("rolling/4",), "what was committed before is what it goes on from"
    with pytest.raises(Superseded, match="attempt 2 of this run has started elsewhere"):
        commit(old, mine, 100)
    with pytest.raises(Superseded, match="attempt 2 of this run has started elsewhere"):
        old.finish(attempt=1, claimant="old VM", result={}, timeout=T)
    commit(new, theirs, 12)
    newest = Line(store).newest(timeout=T)
    assert newest
    assert newest.checkpoints == ("rolling/12", "rolling/4")
    assert old.superseded(attempt=1, claimant="old VM", timeout=T)
    assert not new.superseded(attempt=2, claimant="new VM", timeout=T)


def test_a_commit_that_was_faster_than_the_claim_is_part_of_what_is_claimed(store: Watched) -> None:
    old = Line(store.store)
    mine = claim(old, "old VM")
    done: list[LineEntry] = []

    def before(operation: str, name: str) -> None:
        if operation == "create" and not done:
            done.append(commit(old, mine, 4))

    store.before = before
    assert claim(Line(store), "new VM").checkpoints == ("rolling/4",)


def test_ones_own_next_attempt_is_no_rival(store: Watched) -> None:
    line = Line(store)
    first = claim(line, "us")
    second = claim(line, "us")
    assert commit(line, first, 8).attempt == second.attempt, "what the trainer before had staged is committed after all"
    assert commit(line, second, 12).checkpoints == ("rolling/12", "rolling/8")


def test_an_answer_that_was_lost_is_found_to_be_ones_own(store: Watched) -> None:
    line = Line(store)
    mine = claim(line, "us")

    def after(operation: str, name: str) -> None:
        if operation == "create":
            store.after = lambda operation, name: None
            raise Unavailable("the answer was lost")

    store.after = after
    with pytest.raises(Unavailable):
        commit(line, mine, 4)
    commit(line, mine, 4)
    assert [entry.kind for entry in Line(store).entries(timeout=T)] == ["claim", "commit"], "it is there once"


def test_a_restarted_agent_goes_on_in_the_line_of_the_one_before_it(store: Watched) -> None:
    before = Line(store)
    mine = claim(before, "this boot")
    commit(before, mine, 4)
    assert commit(Line(store), mine, 8).checkpoints == ("rolling/8", "rolling/4")


def test_what_was_passed_over_leaves_the_line_when_an_older_one_is_restored_whoever_reads_it_then(
    store: Watched,
) -> None:
    line = Line(store)
    mine = claim(line, "us")
    for step in (4, 8, 12):
        commit(line, mine, step)
    line.fall_back(attempt=1, claimant="us", step=4, without={"rolling/8", "rolling/12"}, timeout=T)
    newest = Line(store).newest(timeout=T)
    assert newest
    assert (newest.kind, newest.step, newest.checkpoints) == ("restore", 4, ("rolling/4",))
    restarted = Line(store)
    for step in (5, 6):
        assert commit(restarted, mine, step, keep=1).checkpoints == (f"rolling/{step}",), "never cut by its own commit"


def test_a_run_that_is_complete_stays_complete_whatever_comes_after(store: Watched) -> None:
    line, slow = Line(store), Line(store)
    mine = claim(line, "us")
    slow.newest(timeout=T)
    line.finish(attempt=1, claimant="us", result={"step": 4}, timeout=T)
    with pytest.raises(RunComplete):
        claim(slow, "another VM, that asked before")
    with pytest.raises(RunComplete):
        commit(line, mine, 8)
    newest = Line(store).newest(timeout=T)
    assert newest
    assert newest.kind == "done"


def test_ones_own_later_claim_does_not_hide_that_another_was_in_between(store: Watched) -> None:
    ours, theirs = Line(store), Line(store)
    first = claim(ours, "a")
    commit(theirs, claim(theirs, "b"), 12)
    third = claim(ours, "a")
    assert (third.attempt, third.since) == (3, 3)
    with pytest.raises(Superseded):  # what attempt 1 still drains
        commit(ours, first, 100)
    assert commit(ours, third, 16).checkpoints == ("rolling/16", "rolling/12")


def test_whether_another_has_the_line_is_asked_for_one_object(store: Watched) -> None:
    line = Line(store)
    mine = claim(line, "us")
    for step in range(1, 5):
        commit(line, mine, step)
    store.operations.clear()
    line.superseded(attempt=1, claimant="us", timeout=T)
    assert [operation for operation, _ in store.operations] == ["list", "read"]
    assert len(store.list("line/", timeout=T, limit=1)) == 1


def test_a_run_is_finished_once(store: Watched) -> None:
    line = Line(store)
    mine = claim(line, "us")
    first = line.finish(attempt=1, claimant="us", result={"step": 4}, timeout=T)
    again = Line(store).finish(attempt=1, claimant="us", result={"step": 5}, timeout=T)
    assert (first.kind, first.result) == ("done", {"step": 4})
    assert again == first
    assert mine.sequence + 1 == first.sequence


def test_a_run_that_is_older_than_its_line_keeps_what_it_has(store: Watched) -> None:
    entry = Line(store).claim(claimant="us", facts={}, found=lambda: ["rolling/8", "rolling/4"], timeout=T)
    assert entry.checkpoints == ("rolling/8", "rolling/4")


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"sequence": 1}'])
def test_an_entry_that_can_not_be_read_is_an_error_and_no_empty_line(store: Watched, content: bytes) -> None:
    store.create("line/999999998.json", content, timeout=T)
    with pytest.raises(StoreError, match="is no entry of a line"):
        claim(Line(store), "us")


def test_an_entry_of_a_newer_version_is_refused_by_name_and_never_misread(store: Watched) -> None:
    line = Line(store)
    mine = claim(line, "us")
    changed = {"sequence": 2, "format": LINE_FORMAT + 1, "claimant": "them", "more": 1}
    newer = json.loads(store.read(mine.name, timeout=T)) | changed
    store.create("line/999999997.json", json.dumps(newer).encode(), timeout=T)
    looks: list[Callable[[], object]] = [
        partial(commit, line, mine, 4),
        partial(Line(store).newest, timeout=T),
        partial(claim, line, "us"),
        RunRecords(store).metrics,
    ]
    for look in looks:
        with pytest.raises(NewerFormatError, match="newer version of spot-training"):
            look()


def test_an_entry_of_a_version_that_had_no_format_is_read(store: Watched) -> None:
    entry = claim(Line(store), "us")
    values = json.loads(store.read(entry.name, timeout=T))
    assert values.pop("format") == 1
    store.create("line/999999997.json", json.dumps(values | {"sequence": 2}).encode(), timeout=T)
    newest = Line(store).newest(timeout=T)
    assert newest
    assert newest.sequence == 2


def test_who_finds_a_newer_versions_entry_beside_its_own_trainer_is_superseded(store: Watched) -> None:
    saver = Saver(Checkpoints(store, "run"), Uploader(store), 3, "us")
    assert saver.claim(facts={}, timeout=T) == 1
    assert not saver.superseded(timeout=T)
    store.create("line/999999997.json", json.dumps({"format": LINE_FORMAT + 1}).encode(), timeout=T)
    assert saver.superseded(timeout=T)
