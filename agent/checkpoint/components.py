"""Components: the modules of a checkpoint by their names, read out of the bucket by whoever may read there.

A session's tensors are called after what it tracks and the path in it (`model.vision.encoder.weight`), so that a
component is what lies below one path. Every part that is read is held against the checksum in the manifest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from spot_training.protocol.layout import Layout, LayoutError, Slot, plan_layout, read_layout

from agent.checkpoint.bucket import Checkpoints, Entry
from agent.checkpoint.listing import read_part
from agent.checkpoint.manifest import Manifest, ManifestError, Part
from agent.config.places import CHECKPOINT
from agent.store import Corrupt, NotFound, open_store

_CALL_S = 120.0
_CONNECTIONS = 8


class ComponentError(Exception):
    """A checkpoint, or a component of it, is not there, or not as it was; the text says which, and what to do."""


@dataclass(frozen=True)
class Stored:
    """A checkpoint of a run. `kept`: it stays for good."""

    entry: Entry
    manifest: Manifest

    @property
    def kept(self) -> bool:
        return not self.entry.rolling


class Checkpoint:
    """One checkpoint of a session, opened: its tensors by name, without their bytes."""

    def __init__(self, checkpoints: Checkpoints, stored: Stored) -> None:
        """Raises ComponentError, StoreError."""
        self.stored, self._store = stored, checkpoints.store
        self.name = f"{checkpoints.store.url}@{stored.manifest.step}"
        manifest = stored.manifest
        if manifest.layout != "safetensors" or manifest.world_size != 1:
            raise ComponentError(
                f"{self.name} is of kind command: a folder of files, without components. `spot run` puts it back"
            )
        self.parts: Sequence[Part] = sorted(manifest.ranks[0].parts, key=lambda part: part.offset)
        self._layout = self._read_layout()
        tracked: dict[str, Any] = manifest.state.get("tracked", {})
        self.modules = sorted(name for name, thing in tracked.items() if thing["kind"] == "module")
        passing = {
            f"{name}.{path}" for name in self.modules for path in tracked[name]["noted"].get("passing", ())
        }  # fmt: skip
        self.slots = {
            slot.name: slot
            for slot in self._layout.slots
            if slot.name not in passing and any(is_below(slot.name, module) for module in self.modules)
        }
        """The weights: optimizers, generators and what no `state_dict()` has are left out."""
        self.configs: dict[str, dict[str, Any]] = manifest.state.get("configs", {})
        """Of those modules that have a configuration of transformers, by their paths."""

    def find(self, component: str | None) -> str:
        """The path of a component: given whole, or its last name where that is one component's only. None: the one
        module that the run tracks. Raises ComponentError, with those that there are."""
        if component is None:
            if len(self.modules) == 1:
                return self.modules[0]
            raise ComponentError(f"{self.name} has several modules: name one of {', '.join(self.modules)}")
        paths = self.paths()
        if component in paths:
            return component
        ends = [path for path in paths if path.endswith(f".{component}")]
        nearest = [path for path in ends if path.count(".") == min(end.count(".") for end in ends)]
        if len(nearest) == 1:
            return nearest[0]
        which = f"is {' and '.join(nearest)}: write one of these" if nearest else "is none of its components"
        known = "" if nearest else f"; it has {', '.join(self.components())}"
        raise ComponentError(f"{self.name}: {component!r} {which}{known}")

    def paths(self) -> set[str]:
        """Of everything that holds a tensor."""
        found = set()
        for name in self.slots:
            parts = name.split(".")
            found |= {".".join(parts[:end]) for end in range(1, len(parts))}
        return {path for path in found if any(is_below(path, module) for module in self.modules)}

    def components(self) -> list[str]:
        """What is worth a name: each tracked module, and what is right below it."""
        return sorted(
            path for path in self.paths() if any(path.count(".") <= m.count(".") + 1 for m in self._over(path))
        )

    def _over(self, path: str) -> Iterator[str]:
        return (module for module in self.modules if is_below(path, module))

    def below(self, path: str) -> dict[str, Slot]:
        """The tensors of a component, by their names in it."""
        return {name.removeprefix(f"{path}."): slot for name, slot in self.slots.items() if name.startswith(f"{path}.")}

    def read(self, slots: dict[str, Slot]) -> tuple[bytearray, Layout]:
        """Those tensors as one .safetensors file in memory. Raises ComponentError, StoreError."""
        layout = planned(slots)
        file = bytearray(layout.size)
        file[: len(layout.header)] = layout.header

        def put(at: int, data: memoryview) -> None:
            file[at : at + len(data)] = data

        self.gather(slots, layout, put)
        return file, layout

    def write(self, slots: dict[str, Slot], path: Path) -> None:
        """Those tensors as a .safetensors file: there once it is whole. Raises ComponentError, StoreError, OSError."""
        layout = planned(slots)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.truncate(layout.size)
            file.write(layout.header)
            file.flush()
            self.gather(slots, layout, lambda at, data: _write_all(file.fileno(), data, at))

    def gather(self, slots: dict[str, Slot], layout: Layout, put: Callable[[int, memoryview], None]) -> None:
        """Fetch what holds `slots`, and `put` each piece of them at its place in `layout`."""
        targets = {slot.name: slot.offset for slot in layout.slots}
        moves = [(slot, targets[name]) for name, slot in slots.items() if slot.size]

        def fetch(part: Part) -> None:
            data = memoryview(self._part(part))
            for slot, at in moves:
                first, last = max(slot.offset, part.offset), min(slot.offset + slot.size, part.offset + part.size)
                if first < last:
                    put(at + first - slot.offset, data[first - part.offset : last - part.offset])

        wanted = [part for part in self.parts if any(_overlaps(part, slot) for slot, _ in moves)]
        with ThreadPoolExecutor(_CONNECTIONS, "component") as pool:
            list(pool.map(fetch, wanted))

    def verify(self, *, done: Callable[[int], None] = lambda _: None) -> None:
        """Read all of it. `done` hears of bytes. Raises ComponentError, StoreError."""

        def look(part: Part) -> None:
            self._part(part)
            done(part.size)

        with ThreadPoolExecutor(_CONNECTIONS, "verify") as pool:
            list(pool.map(look, self.parts))

    def _part(self, part: Part) -> bytes:
        try:
            return read_part(self._store, part, timeout=_CALL_S)
        except (Corrupt, NotFound) as error:
            raise ComponentError(f"{self.name} is not whole: {error}") from error

    def _read_layout(self) -> Layout:
        """The file's header says how long it is, and may reach over several parts."""
        head = bytearray()
        size = self.stored.manifest.size
        for part in self.parts:
            head += self._part(part)
            if len(head) >= 8 and len(head) >= 8 + int.from_bytes(head[:8], "little"):
                break
        try:
            return read_layout(head, total=size)
        except LayoutError as error:
            raise ComponentError(f"{self.name}: {error}") from error


def listed(url: str) -> list[Stored]:
    """The checkpoints of the run at `url` that can be gone on from, newest first; a milestone stands behind the copy
    that it was made of. Raises ComponentError, StoreError."""
    checkpoints = _of_run(url)
    entries = checkpoints.entries(timeout=_CALL_S)
    with ThreadPoolExecutor(_CONNECTIONS, "list") as pool:
        return [
            Stored(entry, manifest) for entry, manifest in pool.map(partial(_read, checkpoints), entries) if manifest
        ]


def opened(url: str, step: int | None = None) -> Checkpoint:
    """The checkpoint of `step`, or the newest. Raises ComponentError, StoreError."""
    checkpoints = _of_run(url)
    entries = checkpoints.entries(timeout=_CALL_S)
    for entry in entries:
        if step in (None, entry.step) and (manifest := _read(checkpoints, entry)[1]):
            return Checkpoint(checkpoints, Stored(entry, manifest))
    there = ", ".join(dict.fromkeys(str(entry.step) for entry in entries)) or "none"
    which = "no checkpoint" if step is None else f"no checkpoint of step {step}"
    raise ComponentError(f"{checkpoints.store.url} has {which}; there are: {there}")


def of_address(address: str) -> Checkpoint:
    """The checkpoint at gs://BUCKET/PREFIX/RUN_ID@STEP. Raises ComponentError, StoreError."""
    if not (found := CHECKPOINT.fullmatch(address)):
        raise ComponentError(f"{address!r} names no checkpoint: write gs://BUCKET/PREFIX/RUN_ID@STEP")
    return opened(found["url"], int(found["step"]))


def is_below(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}.")


def planned(slots: dict[str, Slot]) -> Layout:
    """A .safetensors file of those tensors alone."""
    return plan_layout({name: (slot.dtype, slot.shape) for name, slot in slots.items()})


def _of_run(url: str) -> Checkpoints:
    return Checkpoints(open_store(url), url.rpartition("/")[2])


def _read(checkpoints: Checkpoints, entry: Entry) -> tuple[Entry, Manifest | None]:
    """None: it was retired just now."""
    try:
        return entry, checkpoints.read(entry, timeout=_CALL_S)
    except NotFound:
        return entry, None
    except ManifestError as error:
        raise ComponentError(str(error)) from error


def _overlaps(part: Part, slot: Slot) -> bool:
    return part.offset < slot.offset + slot.size and slot.offset < part.offset + part.size


def _write_all(fd: int, data: memoryview, at: int) -> None:
    while data:
        written = os.pwrite(fd, data, at)
        data, at = data[written:], at + written
