"""Manifest: the one object whose presence makes a checkpoint.

A checkpoint is a folder of parts (raw bytes, each with its CRC32C) and `manifest.json`, written last and
create-only. No manifest, no checkpoint. It is JSON: reading a checkpoint executes nothing.

Names in the bucket, under the run's prefix:

    rolling/000000000042-00003/part-00000.bin ... manifest.json     newest K stay
    milestones/000000000040-00003/...                               copies that no VM may overwrite or delete
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.store.formats import MANIFEST_FORMAT, refuse_newer

MANIFEST = "manifest.json"
Layout = Literal["safetensors", "folder"]
"""What a checkpoint's bytes are: a session's tensors, or a program's folder (`agent.checkpoint.listing`)."""


class ManifestError(Exception):
    """A manifest that can't be used; the next older checkpoint may be."""


class Part(BaseModel):
    """One object: bytes [offset, offset + size) of its rank's arena. `name` is relative to the run's prefix, so
    that a later checkpoint can refer to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    offset: int = Field(ge=0)
    size: int = Field(gt=0)
    crc32c: int = Field(ge=0, lt=1 << 32)


class RankParts(BaseModel):
    """One rank's arena: `size` bytes in parts. Layout `safetensors`: the bytes are one .safetensors file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    rank: int
    size: int = Field(gt=0)
    parts: list[Part]


class Manifest(BaseModel):
    """What a checkpoint holds. `step`: optimizer updates done. `state`: its JSON part (counters, data position,
    scheduler, noted at the same boundary)."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")  # as Python's json reads them
    format: Literal[1, 2] = 1
    """2: a folder's list of files is among its bytes. In 1 it is in `state`."""
    run_id: str
    step: int
    attempt: int
    reason: str
    created: str
    layout: Layout
    world_size: int
    ranks: list[RankParts]
    state: dict[str, Any]

    @property
    def size(self) -> int:
        """Bytes in all parts."""
        return sum(rank.size for rank in self.ranks)

    def part_names(self) -> set[str]:
        return {part.name for rank in self.ranks for part in rank.parts}

    def check(self) -> None:
        """Raises ManifestError when a rank is missing, or its parts do not cover its bytes exactly."""
        ranks = [rank.rank for rank in self.ranks]
        if not ranks or ranks != list(range(self.world_size)):
            raise ManifestError(f"it has the ranks {ranks}, of {self.world_size}")
        for rank in self.ranks:
            end = 0
            for part in sorted(rank.parts, key=lambda p: p.offset):
                if part.offset != end:
                    raise ManifestError(f"rank {rank.rank}: bytes {end} to {part.offset} are in no part or in two")
                end += part.size
            if end != rank.size:
                raise ManifestError(f"rank {rank.rank}: parts end at {end}, the arena at {rank.size}")


def folder_name(step: int, attempt: int, token: str = "") -> str:
    """Name of a checkpoint's folder; sorting by name is sorting by (step, attempt). `token` makes it another one where
    an earlier save of the same step may have left something: no name is ever used for two contents."""
    return f"{step:012d}-{attempt:05d}" + (f"-{token}" if token else "")


def parse_manifest(raw: bytes, *, where: str) -> Manifest:
    """Read and check a manifest.

    Raises:
        NewerFormatError: its `format` is newer than this program's.
        ManifestError: anything else that is wrong with it.
    """

    try:
        values = json.loads(raw)
    except ValueError as error:
        raise ManifestError(f"{where}: not a manifest ({error})") from error
    refuse_newer(values, reads=MANIFEST_FORMAT, where=where)
    try:
        manifest = Manifest.model_validate(values)
        manifest.check()
    except (ValidationError, ManifestError) as error:
        raise ManifestError(f"{where}: {error}") from error
    return manifest
