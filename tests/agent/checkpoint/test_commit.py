"""A checkpoint is whole or it does not exist, wherever the VM, the agent or the network died."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from agent.checkpoint.bucket import Checkpoints
from agent.checkpoint.line import Line
from agent.checkpoint.manifest import MANIFEST
from agent.store import open_store
from agent.store.names import MILESTONES, ROLLING
from infra.local.bucket import RunRecords
from tests.agent.checkpoint.saving import PART, PATIENCE_S, RUN, content, line, newest, saving
from tests.agent.stores import Watched


class PowerCut(Exception):
    """Nothing reaches the bucket any more."""


class Cut:
    """A store hook that cuts the power at operation `number`, before it is done or after."""

    def __init__(self, number: int, *, done: bool) -> None:
        self._left = number
        self._done = done
        self._dead = False

    def before(self, operation: str, name: str) -> None:
        if not self._done:
            self._count()
        self._stop_if_dead()

    def after(self, operation: str, name: str) -> None:
        if self._done:
            self._count()
        self._stop_if_dead()

    def _count(self) -> None:
        self._dead = self._dead or self._left == 0
        self._left -= 1

    def _stop_if_dead(self) -> None:
        if self._dead:
            raise PowerCut


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.checkpoint.drain.MIN_PART", PART)
    monkeypatch.setattr("agent.checkpoint.drain.MAX_PART", PART)


async def train(store: Watched) -> None:
    """Two checkpoints of which one is kept; the second is a milestone."""
    async with saving(store, keep=1) as toy:
        toy.log(0, 4)
        await toy.save(4)
        toy.log(4, 8)
        await toy.save(8, 1, "milestone")
        toy.log(8, 10)


async def resume(store: Watched) -> int:
    """The next VM: from the newest checkpoint to step 12. Returns the step it began at."""
    found = newest(store)
    begun = found[0] if found else 0
    async with saving(store, keep=1, claimant="the next VM") as toy:
        toy.saver.begin_attempt(toy.saver.attempt, begun)
        toy.saver.committed_step = begun
        toy.log(begun, 12)
        await toy.save(12)
    return begun


def operations_of_a_whole_run(folder: Path) -> list[tuple[str, str]]:
    store = Watched(open_store(f"file://{folder}"))
    asyncio.run(train(store))
    assert newest(store.store) == (8, 1)
    return store.operations


def test_killed_at_any_operation_there_is_a_whole_checkpoint_or_none_and_the_run_goes_on(tmp_path: Path) -> None:
    operations = operations_of_a_whole_run(tmp_path / "whole")
    kinds = {operation for operation, _ in operations}
    assert kinds == {"create", "list", "read", "copy", "delete"}
    for number, done in itertools.product(range(len(operations)), (False, True)):
        where = f"{operations[number]}, {'done' if done else 'not done'}"
        raw = Watched(open_store(f"file://{tmp_path}/{number}-{done}"))
        cut = Cut(number, done=done)
        store = Watched(raw, cut.before, cut.after)
        try:
            asyncio.run(train(store))
        except PowerCut:
            assert number == 0 or operations[number][1].startswith("line/"), where

        names = raw.names()
        top = Line(raw.store).newest(timeout=PATIENCE_S)
        committed = [step for step in (4, 8) if top and f"{ROLLING}{step:012d}-00001" in top.checkpoints]
        milestone = f"{MILESTONES}{8:012d}-00001/{MANIFEST}" in names
        found = newest(raw.store)
        if committed or milestone:
            assert found == (8 if milestone else max(committed), 1), where
        else:
            assert found is None, where
        if milestone:
            assert_whole_milestone(raw)

        begun = asyncio.run(resume(raw))
        assert begun == (found[0] if found else 0)
        attempt = newest(raw.store)
        assert attempt is not None
        assert attempt[0] == 12, where
        rolling = {name.split("/")[1] for name in raw.names(ROLLING)}
        top = Line(raw.store).newest(timeout=PATIENCE_S)
        assert top
        due = {folder.removeprefix(ROLLING) for folder in top.due}  # copied since: the next commit lets it go
        assert rolling == {f"{12:012d}-{attempt[1]:05d}", *due}, f"{where}: torn uploads are swept, old ones retired"
        assert RunRecords(raw.store).metrics() == [line(step) for step in range(12)], where
        if 8 in committed:
            assert_whole_milestone(raw)


def assert_whole_milestone(store: Watched) -> None:
    checkpoints = Checkpoints(store, RUN)
    (entry,) = [entry for entry in checkpoints.entries(timeout=PATIENCE_S) if not entry.rolling]
    manifest = checkpoints.read(entry, timeout=PATIENCE_S)
    raw = b"".join(store.read(part.name, timeout=PATIENCE_S) for part in manifest.ranks[0].parts)
    assert raw == content(8)
    assert all(name.startswith(entry.folder) for name in manifest.part_names())


def test_the_manifest_is_written_when_all_else_is_there(tmp_path: Path) -> None:
    operations = operations_of_a_whole_run(tmp_path)
    for step in (4, 8):
        folder = f"{ROLLING}{step:012d}-00001"
        created = [name for operation, name in operations if operation == "create" and name.startswith(folder)]
        assert created[-1] == f"{folder}/{MANIFEST}"
        assert len(created) == 4
        lines = next(name for _, name in operations if name.startswith(f"metrics/{step - 4:012d}"))
        assert operations.index(("create", lines)) < operations.index(("create", created[-1]))
