"""Checkpoints in the bucket: find, write, retire, keep as a milestone.

A checkpoint is whole once its manifest is there, and the run's once the line names it (`agent.checkpoint.line`).
Retiring deletes the manifest first and the parts after, so that a manifest never names a part that is gone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import structlog

from agent.checkpoint.line import Line
from agent.checkpoint.manifest import (
    MANIFEST,
    Manifest,
    ManifestError,
    folder_name,
    parse_manifest,
)
from agent.checkpoint.spoilt import is_spoilt
from agent.store import AlreadyExists, Corrupt, NotFound, Store
from agent.store.names import MILESTONE_PART, MILESTONES, ROLLING

log = structlog.get_logger()
_FOLDER = re.compile(r"(\d+)-(\d+)(?:-([0-9a-f]+))?")
_BATCH = 100  # deletions in one request
MILESTONE = "milestone"  # the reason of a checkpoint that is to be kept


class Yielded(Exception):
    """A save goes first; what was left is done after it."""


def _never() -> bool:
    return False


@dataclass(frozen=True, order=True)
class Entry:
    """A folder that has a manifest. Sorting is by age: (step, attempt), a rolling one after its milestone copy."""

    step: int
    attempt: int
    rolling: bool
    token: str = ""

    @property
    def leaf(self) -> str:
        return folder_name(self.step, self.attempt, self.token)

    @property
    def folder(self) -> str:
        return f"{ROLLING if self.rolling else MILESTONES}{self.leaf}"

    @property
    def manifest_name(self) -> str:
        return f"{self.folder}/{MANIFEST}"


def _parse_folder(folder: str, *, rolling: bool) -> Entry | None:
    found = _FOLDER.fullmatch(folder)
    return Entry(int(found[1]), int(found[2]), rolling, found[3] or "") if found else None


def entry_of(folder: str) -> Entry | None:
    """The checkpoint in a folder that the line names."""
    return _parse_folder(folder.removeprefix(ROLLING), rolling=True)


def _whole(names: Collection[str], prefix: str, *, rolling: bool) -> list[Entry]:
    """The folders among `names` that have a manifest."""
    found = []
    for name in names:
        folder, _, leaf = name.removeprefix(prefix).rpartition("/")
        if leaf == MANIFEST and (entry := _parse_folder(folder, rolling=rolling)):
            found.append(entry)
    return found


class Checkpoints:
    """The checkpoints of one run. Every call takes its own `timeout` in seconds and may raise StoreError."""

    def __init__(self, store: Store, run_id: str) -> None:
        self.store = store
        self.run_id = run_id
        self.line = Line(store)
        self.kept: set[str] = set()  # rolling folders that need no copy any more
        self._undeletable: set[str] = set()  # said once

    def entries(self, *, timeout: float) -> list[Entry]:
        """What the run can be restored from, newest first: what its line names, each with its milestone copy behind it,
        then older milestones. Where there is no line yet, all that is there."""
        newest = self.line.newest(timeout=timeout)
        there = self.found(timeout=timeout)
        if newest is None:
            return there
        milestones = {entry.leaf: entry for entry in there if not entry.rolling}
        ordered: list[Entry] = []
        for folder in newest.checkpoints:
            if entry := entry_of(folder):
                ordered.append(entry)
                if copy := milestones.pop(entry.leaf, None):
                    ordered.append(copy)
        older = [each for each in milestones.values() if not is_spoilt(each.attempt, each.step, newest.spikes)]
        return ordered + sorted(older, key=lambda entry: (entry.attempt, entry.step), reverse=True)

    def candidates(self, *, timeout: float) -> Iterator[Entry]:
        """As `entries`, asking for the older milestones only when it comes to them: they may have 100,000 parts. A
        milestone copy may not be there."""
        newest = self.line.newest(timeout=timeout)
        if newest is None:
            yield from self.found(timeout=timeout)
            return
        told = set()
        for folder in newest.checkpoints:
            if entry := entry_of(folder):
                told.add(entry.leaf)
                yield entry
                yield replace(entry, rolling=False)
        folders = [
            folder.removeprefix(MILESTONES).rstrip("/") for folder in self.store.folders(MILESTONES, timeout=timeout)
        ]
        older = [
            entry for folder in folders
            if (entry := _parse_folder(folder, rolling=False)) and entry.leaf not in told
            and not is_spoilt(entry.attempt, entry.step, newest.spikes)
        ]  # fmt: skip
        yield from sorted(older, key=lambda entry: (entry.attempt, entry.step), reverse=True)

    def found(self, *, timeout: float) -> list[Entry]:
        """Every folder with a manifest, of the line or not, newest first."""
        rolling = self._found(ROLLING, rolling=True, timeout=timeout)
        return sorted([*rolling, *self._found(MILESTONES, rolling=False, timeout=timeout)], reverse=True)

    def _found(self, prefix: str, *, rolling: bool, timeout: float) -> list[Entry]:
        return _whole([stored.name for stored in self.store.list(prefix, timeout=timeout)], prefix, rolling=rolling)

    def read(self, entry: Entry, *, timeout: float) -> Manifest:
        """The entry's manifest. Raises ManifestError when it is not one, or another run's."""
        where = f"{self.store.url}/{entry.manifest_name}"
        manifest = parse_manifest(self.store.read(entry.manifest_name, timeout=timeout), where=where)
        if manifest.run_id != self.run_id:
            raise ManifestError(
                f"{where} belongs to run {manifest.run_id!r}, not {self.run_id!r}: two runs share a prefix"
            )
        return manifest

    def commit(self, manifest: Manifest, *, token: str = "", timeout: float) -> Entry:
        """Write the manifest, create-only: from here on the checkpoint is whole."""
        entry = Entry(manifest.step, manifest.attempt, rolling=True, token=token)
        try:
            self.store.create(entry.manifest_name, manifest.model_dump_json(indent=1).encode(), timeout=timeout)
        except AlreadyExists:  # an agent that was killed before it could tell the trainer
            if self.read(entry, timeout=timeout).ranks != manifest.ranks:
                raise
        return entry

    def keep_milestones(self, *, timeout: float, stop: Callable[[], bool] = _never) -> list[Entry]:
        """Copy what the line says is due: an earlier agent may have died before it could. Returns what is kept now.
        `stop` is asked before each copy: a save goes first."""
        newest = self.line.known or self.line.newest(timeout=timeout)
        kept = []
        for folder in newest.due if newest else ():
            entry = entry_of(folder)
            if entry is None or folder in self.kept:
                continue
            try:
                manifest = self.read(entry, timeout=timeout)
                kept.append(self.keep_as_milestone(manifest, token=entry.token, timeout=timeout, stop=stop))
            except Yielded:
                return kept
            except (ManifestError, NotFound, Corrupt) as error:
                # It can't be kept, and must not stand in the way of the others.
                log.error("checkpoint_bad", folder=entry.folder, step=entry.step, error=str(error))
            except AlreadyExists as error:
                log.error("milestone_taken", folder=entry.folder, error=str(error))
            self.kept.add(folder)
        return kept

    def keep_as_milestone(
        self, manifest: Manifest, *, token: str = "", timeout: float, stop: Callable[[], bool] = _never
    ) -> Entry:
        """Copy a committed checkpoint, server-side, to where no VM can overwrite or delete it. Raises Yielded where
        `stop` said so in between: the copies that are there are found again."""
        entry = Entry(manifest.step, manifest.attempt, rolling=False, token=token)
        renamed = [
            rank.model_copy(
                update={
                    "parts": [
                        part.model_copy(
                            update={"name": f"{entry.folder}/rank-{rank.rank:05d}-part-{number:05d}{MILESTONE_PART}"}
                        )
                        for number, part in enumerate(rank.parts)
                    ]
                }
            )
            for rank in manifest.ranks
        ]
        pairs = [
            (old.name, new.name)
            for before, after in zip(manifest.ranks, renamed, strict=True)
            for old, new in zip(before.parts, after.parts, strict=True)
        ]

        def copy(pair: tuple[str, str]) -> None:
            if stop():
                raise Yielded
            self.store.copy(*pair, timeout=timeout)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(copy, pairs))
        body = manifest.model_copy(update={"ranks": renamed}).model_dump_json(indent=1).encode()
        self.store.create(entry.manifest_name, body, timeout=timeout)
        return entry

    def retire(
        self,
        *,
        keep: int,
        attempt: int,
        busy: Collection[str],
        in_use: Collection[str] = (),
        timeout: float,
        stop: Callable[[], bool] = _never,
    ) -> list[str]:
        """Delete rolling checkpoints that the line does not name, and what failed or older uploads left.

        Where there is no line yet: all but the newest `keep`.

        A folder that the line does not name goes only once the line has passed its step: a run that fell back, or began
        anew, must not lose what it passed over for good. Those of attempts after `attempt`, and the folders in `busy`,
        are left alone: somebody is still writing them. So are the objects in `in_use`, and those that a checkpoint
        which stays refers to, wherever they lie. What can't be deleted (a hold, a retention policy) is told and
        passed over. `stop` is asked between two deletions: a save goes first. Returns the names of what was deleted.
        """
        newest = self.line.newest(timeout=timeout)
        if stop():
            return []
        objects = [entry.name for entry in self.store.list(ROLLING, timeout=timeout)]
        there = _whole(objects, ROLLING, rolling=True)
        if newest is None:
            there.sort(key=lambda entry: (entry.attempt, entry.step), reverse=True)
            line = there
        else:
            by_folder = {entry.folder: entry for entry in there}
            line = [by_folder[folder] for folder in newest.checkpoints if folder in by_folder]
        kept = line if newest else line[:keep]  # the line lets go of a checkpoint with a commit; only then it may go
        passed = kept[0].step if kept else -1
        retired = [
            entry for entry in there
            if entry not in kept
            and entry.attempt <= attempt
            and (newest is None or entry.step <= passed)
        ]  # fmt: skip
        staying = [*kept, *(entry for entry in there if entry not in retired and entry not in kept)]
        live = {*in_use, *(name for entry in staying for name in self._names(entry, timeout=timeout))}
        safe = {entry.folder for entry in kept} | set(busy)
        whole = {entry.folder for entry in staying}
        newest_own = max((entry.step for entry in line if entry.attempt == attempt), default=-1)
        doomed = [entry.manifest_name for entry in retired if entry.folder not in busy]
        for name in objects:
            folder, _, leaf = name.rpartition("/")
            torn = entry_of(folder)
            if name in live or leaf == MANIFEST or folder in safe or folder in whole or torn is None:
                continue
            if torn.attempt < attempt or (torn.attempt == attempt and torn.step < newest_own):
                doomed.append(name)
        return self._delete(doomed, stop=stop, timeout=timeout)

    def _delete(self, names: Collection[str], *, stop: Callable[[], bool], timeout: float) -> list[str]:
        """Manifests first; the parts of one that stays do too."""
        deleted: list[str] = []
        kept: set[str] = set()
        manifests = [name for name in names if name.endswith(f"/{MANIFEST}")]
        for some in (manifests, [name for name in names if name not in manifests]):
            for at in range(0, len(some), _BATCH):
                if stop():
                    return deleted
                batch = [name for name in some[at : at + _BATCH] if name.rpartition("/")[0] not in kept]
                stayed = self.store.delete_many(batch, timeout=timeout)
                deleted += [name for name in batch if name not in stayed]
                kept |= {name.rpartition("/")[0] for name in stayed}
                for name, why in stayed.items():
                    if name not in self._undeletable:
                        self._undeletable.add(name)
                        log.warning("not_retired", name=name, why=str(why))
        return deleted

    def _names(self, entry: Entry, *, timeout: float) -> Iterator[str]:
        yield entry.manifest_name
        try:
            yield from self.read(entry, timeout=timeout).part_names()
        except (ManifestError, NotFound, Corrupt):  # not a newer version's: what that refers to is not known
            return  # a bad one keeps its place until it is old enough; its folder is safe by name
