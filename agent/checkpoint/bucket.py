"""Checkpoints in the bucket: find, commit, retire, keep as a milestone.

Committing is writing the manifest. Retiring deletes the manifest first and the parts after, so that a manifest
never names a part that is gone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from agent.checkpoint.manifest import (
    MANIFEST,
    Manifest,
    ManifestError,
    NewerFormatError,
    folder_name,
    parse_manifest,
)
from agent.store import AlreadyExists, Corrupt, NotFound, Store
from agent.store.names import MILESTONE_PART, MILESTONES, ROLLING

log = structlog.get_logger()
MILESTONE = "milestone"  # the reason of a checkpoint that is to be kept


@dataclass(frozen=True, order=True)
class Entry:
    """A folder that has a manifest. Sorting is by age: (step, attempt), a rolling one after its milestone copy."""

    step: int
    attempt: int
    rolling: bool

    @property
    def folder(self) -> str:
        return f"{ROLLING if self.rolling else MILESTONES}{folder_name(self.step, self.attempt)}"

    @property
    def manifest_name(self) -> str:
        return f"{self.folder}/{MANIFEST}"


def _parse_folder(folder: str, *, rolling: bool) -> Entry | None:
    step, _, attempt = folder.partition("-")
    return Entry(int(step), int(attempt), rolling) if step.isdecimal() and attempt.isdecimal() else None


class Checkpoints:
    """The checkpoints of one run. Every call takes its own `timeout` in seconds and may raise StoreError."""

    def __init__(self, store: Store, run_id: str) -> None:
        self.store = store
        self.run_id = run_id

    def entries(self, *, timeout: float) -> list[Entry]:
        """Everything committed, newest first."""
        found = []
        for prefix, rolling in ((ROLLING, True), (MILESTONES, False)):
            for stored in self.store.list(prefix, timeout=timeout):
                folder, _, leaf = stored.name.removeprefix(prefix).rpartition("/")
                if leaf == MANIFEST and (entry := _parse_folder(folder, rolling=rolling)):
                    found.append(entry)
        return sorted(found, reverse=True)

    def read(self, entry: Entry, *, timeout: float) -> Manifest:
        """The entry's manifest. Raises ManifestError when it is not one, or another run's."""
        where = f"{self.store.url}/{entry.manifest_name}"
        manifest = parse_manifest(self.store.read(entry.manifest_name, timeout=timeout), where=where)
        if manifest.run_id != self.run_id:
            raise ManifestError(
                f"{where} belongs to run {manifest.run_id!r}, not {self.run_id!r}: two runs share a prefix"
            )
        return manifest

    def commit(self, manifest: Manifest, *, timeout: float) -> Entry:
        """Write the manifest, create-only: from here on the checkpoint exists."""
        entry = Entry(manifest.step, manifest.attempt, rolling=True)
        try:
            self.store.create(entry.manifest_name, manifest.model_dump_json(indent=1).encode(), timeout=timeout)
        except AlreadyExists:  # an agent that was killed before it could tell the trainer
            if self.read(entry, timeout=timeout).ranks != manifest.ranks:
                raise
        return entry

    def keep_milestones(self, *, timeout: float) -> list[Entry]:
        """Copy every milestone that has no copy yet: an earlier agent may have died before it could. Returns those."""
        entries = self.entries(timeout=timeout)
        copied = {(entry.step, entry.attempt) for entry in entries if not entry.rolling}
        kept = []
        for entry in entries:
            if entry.rolling and (entry.step, entry.attempt) not in copied:
                try:
                    manifest = self.read(entry, timeout=timeout)
                    if manifest.reason == MILESTONE:
                        kept.append(self.keep_as_milestone(manifest, timeout=timeout))
                except NewerFormatError:
                    raise
                except (ManifestError, NotFound, Corrupt, AlreadyExists) as error:
                    # It can't be kept, and must not stand in the way of the others.
                    log.error("checkpoint_bad", folder=entry.folder, step=entry.step, error=str(error))
        return kept

    def keep_as_milestone(self, manifest: Manifest, *, timeout: float) -> Entry:
        """Copy a committed checkpoint, server-side, to where no VM can overwrite or delete it."""
        entry = Entry(manifest.step, manifest.attempt, rolling=False)
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
            self.store.copy(*pair, timeout=timeout)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(copy, pairs))
        body = manifest.model_copy(update={"ranks": renamed}).model_dump_json(indent=1).encode()
        self.store.create(entry.manifest_name, body, timeout=timeout)
        return entry

    def retire(self, *, keep: int, attempt: int, busy: Collection[str], timeout: float) -> list[str]:
        """Delete rolling checkpoints but the newest `keep`, and torn uploads of earlier attempts.

        Newest is what was committed last, by attempt and then by step: an attempt that had to fall back to an older
        checkpoint must not lose its own to the bad ones it passed over. A torn upload is a folder without a manifest.
        Those of attempts after `attempt`, and the folders in `busy`, are left alone: somebody is still writing them.
        Returns the names of the deleted objects.
        """
        objects = [entry.name for entry in self.store.list(ROLLING, timeout=timeout)]
        committed = [entry for entry in self.entries(timeout=timeout) if entry.rolling]
        committed.sort(key=lambda entry: (entry.attempt, entry.step), reverse=True)
        kept, retired = committed[:keep], committed[keep:]
        live = {name for entry in kept for name in self._names(entry, timeout=timeout)}
        for entry in retired:
            self.store.delete(entry.manifest_name, timeout=timeout)
        deleted = [entry.manifest_name for entry in retired]
        safe = {entry.folder for entry in kept} | set(busy)
        newest = max((entry.step for entry in committed if entry.attempt == attempt), default=-1)
        for name in objects:
            folder, _, leaf = name.rpartition("/")
            torn = _parse_folder(folder.removeprefix(ROLLING), rolling=True)
            if name in live or leaf == MANIFEST or folder in safe or torn is None:
                continue
            if torn.attempt < attempt or (torn.attempt == attempt and torn.step < newest):
                self.store.delete(name, timeout=timeout)
                deleted.append(name)
        return deleted

    def _names(self, entry: Entry, *, timeout: float) -> Iterator[str]:
        yield entry.manifest_name
        try:
            yield from self.read(entry, timeout=timeout).part_names()
        except NewerFormatError:
            raise  # what it refers to is not known, so nothing may be deleted
        except (ManifestError, NotFound, Corrupt):
            return  # a bad one keeps its place until it is old enough; its folder is safe by name
