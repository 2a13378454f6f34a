"""Said: what the program itself has called saved (`spot saved`), and what a checkpoint has brought back.

Who has spoken once is believed from then on: of what looks like its saves, that alone is whole of which it has spoken,
for as long as nobody writes to it. It is kept on this VM's disk: an agent that comes later knows it too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from agent.checkpoint.listing import FolderEntry
from agent.trainer.folder.loose import is_loose
from agent.trainer.folder.rules import Save, above, shape

_NUMBERS = 100


class Said:
    """`path` is where it is kept."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saves: dict[str, str] = {}
        self.steps: dict[str, int] = {}
        """Where the program told a step with it."""
        self._numbers: dict[str, int] = {}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            values = json.loads(path.read_text())
            self._saves, self.steps, self._numbers = values["saves"], values["steps"], values["numbers"]

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, for `brought_back`."""
        return {"said": sorted(self._saves), "said_steps": self.steps} if self._saves else {}

    def say(self, save: str, entries: Collection[FolderEntry], step: int | None = None) -> None:
        """`save`, as it is in `entries`, is whole; "" is the folder itself."""
        there = {entry.path for entry in entries}
        self._saves = {path: state for path, state in self._saves.items() if not path or path in there}
        self._saves |= fingerprints([save], entries)
        self.steps = {path: told for path, told in self.steps.items() if path in self._saves and path != save}
        if step is not None:
            self.steps[save] = step
        self._keep()

    def brought_back(self, entries: Collection[FolderEntry], saves: Collection[str], steps: Mapping[str, int]) -> None:
        """A checkpoint is in place, and the program has not begun: its `saves` are whole."""
        self._saves, self.steps = fingerprints(saves, entries), dict(steps)
        self._keep()

    def step_of(self, number: int) -> int | None:
        """The program's step in the agent's save of that number; None where nobody told."""
        return self._numbers.get(str(number))

    def number(self, number: int, step: int | None) -> None:
        """The agent's save of that number holds the program's `step`."""
        newest = dict(list(self._numbers.items())[-_NUMBERS:])
        self._numbers = newest if step is None else newest | {str(number): step}
        self._keep()

    def _keep(self) -> None:
        aside = self._path.with_suffix(".tmp")
        try:
            aside.write_text(json.dumps({"saves": self._saves, "steps": self.steps, "numbers": self._numbers}))
            aside.replace(self._path)
        except OSError:  # a full disk: who comes later waits for the next word
            aside.unlink(missing_ok=True)

    def saves(self, entries: Collection[FolderEntry]) -> list[Save]:
        """What it has spoken of, and what looks like it."""
        if not self._saves:
            return []
        there = {entry.path for entry in entries} | {""}
        now = fingerprints(self._saves, entries)
        changed = "it was written to since the program said that it is saved"
        found = [
            Save(path, True) if now[path] == state else Save(path, False, changed)
            for path, state in self._saves.items()
            if path in there
        ]
        shapes = {shape(path) for path in self._saves if path != shape(path)}
        unsaid = [path for path in there if path not in self._saves and path != shape(path) and shape(path) in shapes]
        return [*found, *(Save(path, False, "the program has not said that it is saved") for path in unsaid)]


def fingerprints(saves: Collection[str], entries: Iterable[FolderEntry]) -> dict[str, str]:
    """What tells two states of each save apart."""
    states = {save: hashlib.blake2b(digest_size=16) for save in saves}
    for entry in entries:
        if entry.kind != "folder" and not is_loose(entry.path):
            line = f"{entry.path}\0{entry.size}\0{entry.mtime_ns}\0{entry.target}\n".encode(errors="surrogateescape")
            for path in ("", *above(entry.path)):
                if path in states:
                    states[path].update(line)
    return {save: state.hexdigest() for save, state in states.items()}
