"""Whole: which of a program's saves are whole, and what of its folder can be stored as it stands.

What is known comes first: by the program's own word, by the user's `complete_when`, by the frameworks' last file, by a
file format that says where it ends. Nothing is whole that somebody has open for writing. Only of the rest it counts
that it stands still, which promises less: a program that pauses amid a save for longer than that is not found out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from agent.checkpoint.listing import TOP, FolderEntry
from agent.trainer.folder.formats import is_torn
from agent.trainer.folder.loose import is_loose
from agent.trainer.folder.rules import (
    Save,
    above,
    is_aside,
    saves_by_glob,
    saves_by_name,
    saves_by_rule,
    step_in,
)
from agent.trainer.folder.said import Said

STILL_S = 1.0
"""How long that must stand still of which nobody knows whether it is whole."""
_KNOWN_S = 0.2  # of what is known to be whole: other ranks' files may come a moment later
_WRITING_S = 5.0  # a save that is half and was not touched for so long is a leftover


Sign = tuple[object, ...]


def sign(entry: FolderEntry) -> Sign:
    """What tells two states of one thing apart."""
    written = (0, 0) if entry.kind == "folder" else (entry.mtime_ns, entry.inode)
    return entry.kind, entry.mode, entry.size, written, entry.target


@dataclass(frozen=True)
class Judged:
    """What there is at one moment. `take` can be stored; of it, `carried` is what may change meanwhile."""

    entries: list[FolderEntry]
    take: list[FolderEntry] = field(default_factory=list)
    carried: frozenset[str] = frozenset()
    half: dict[str, str] = field(default_factory=dict)
    """Saves that are not whole, and why."""
    unsettled: tuple[str, ...] = ()
    """What is in no save, and did not stand still."""
    writing: bool = False
    """Something is being written, or may be: it is worth to wait."""
    by_stillness: bool = False
    """Nobody knows that it is whole: it stood still."""
    step: int | None = None
    """The program's own, of the newest save in `take`, where a name or its word tells."""

    @property
    def whole(self) -> bool:
        return any(entry.kind not in ("folder", "link") and entry.path not in self.carried for entry in self.take)

    @property
    def state(self) -> dict[str, Sign]:
        """What a later one is compared with: all that does not change all the time."""
        return {entry.path: sign(entry) for entry in self.take if entry.path not in self.carried}

    @property
    def signs(self) -> dict[str, Sign]:
        """All that is there, half or not, but for what changes all the time."""
        return {each.path: sign(each) for each in self.entries if each.path not in self.carried}

    def is_half(self, path: str) -> bool:
        """Whether it is part of a save that is not whole."""
        return any(Save(half, None).holds(path) for half in self.half if half)

    def is_file(self, path: str) -> bool:
        return self.state[path][0] not in ("folder", "link")

    def written_ns(self) -> int:
        """When the last of what is whole was written."""
        return max((each.mtime_ns for each in self.take if each.kind != "folder" and each.path not in self.carried),
                   default=0)  # fmt: skip


def changed_since(judged: Judged, later: Collection[FolderEntry]) -> str:
    """What of that which was taken is another by now; empty where nothing is. What changes all the time may; but what
    only stood still did not, where something is new."""
    now = {entry.path: sign(entry) for entry in later}
    for path, was in judged.state.items():
        if now.get(path) != was:
            return path
    known = {entry.path for entry in judged.entries}
    new = (path for path in now if path not in known and not is_loose(path) and not is_aside(path))
    return next(new, "") if judged.by_stillness else ""


class Judge:
    """Looks again and again, and remembers since when each file is as it is. `pattern`: the user's `complete_when`."""

    def __init__(self, folder: Path, said: Said, pattern: str | None) -> None:
        self._folder = folder
        self._said = said
        self._pattern = pattern
        self._since: dict[str, tuple[Sign, float]] = {}
        self._formats: dict[str, tuple[Sign, str]] = {}
        self._ended = False
        self._deleted: dict[str, float] = {}  # when something below it was

    def look(
        self, entries: list[FolderEntry], written: Collection[str], *, now: float, wall_ns: int, ended: bool = False
    ) -> Judged:
        """`written`: what somebody has open for writing. `now` is monotonic, `wall_ns` the time of day. `ended`: the
        program has, and nobody writes any more."""
        self._ended = ended
        self._note(entries, now, wall_ns)
        saves = self._saves(entries)
        members: dict[str, list[FolderEntry]] = {path: [] for path in saves}
        rest: list[FolderEntry] = []
        for entry in entries:
            if entry.path == TOP:
                continue
            owner = next((path for path in ("", *above(entry.path)) if path in saves), None)
            (rest if owner is None else members[owner]).append(entry)
        half: dict[str, str] = {}
        writing = stillness = False
        still: dict[tuple[str, ...], float] = defaultdict(lambda: float("inf"))
        for path, save in saves.items():
            if save.whole is None:
                still[_together(path)] = min(still[_together(path)], self._still_s(members[path], now))
        for path, save in saves.items():
            state = self._state(save, members[path], written, now, still)
            if state:
                half[path] = state
                writing |= self._still_s(members[path], now) < _WRITING_S or _open(members[path], written)
            elif save.whole is None:
                stillness = True
        whole = {path for path in saves if path not in half}
        carried = {entry.path for entry in entries if is_loose(entry.path)}
        take = [entry for path in saves if path in whole for entry in members[path]]
        others, torn, unsettled = self._others(rest, carried, written, now, known=bool(saves))
        half |= torn
        writing |= bool(unsettled)
        if saves or not (torn or unsettled):
            take += others
            carried |= {each.path for each in others if each.path in written} if saves else set()
            stillness |= not saves
        if "" in half:
            take = []
        keep = {TOP, *(entry.path for entry in take)}
        ordered = [entry for entry in entries if entry.path in keep and not _leads_into(entry, half)]
        marked = [
            each._replace(loose=True) if each.path in carried and each.kind == "file" and not each.loose else each
            for each in ordered
        ]
        step = self._step(saves, whole, members)
        return Judged(entries, marked, frozenset(carried), half, tuple(unsettled), writing, stillness, step)

    def _saves(self, entries: list[FolderEntry]) -> dict[str, Save]:
        """By path, the outermost of those whose word counts most."""
        found: dict[str, Save] = {}
        for one in (
            self._said.saves(entries),
            saves_by_glob(entries, self._pattern) if self._pattern else [],
            saves_by_rule(entries, self._folder),
            saves_by_name(entries),
        ):
            fresh = [save for save in one if not any(Save(path, None).holds(save.path) for path in found)]
            for save in sorted(fresh, key=lambda save: len(save.path)):
                inside = any(path in found for path in ("", *above(save.path)))
                if not inside and not is_loose(save.path) and not any(save.holds(path) for path in found):
                    found[save.path] = save
        return found

    def _state(
        self, save: Save, members: list[FolderEntry], written: Collection[str], now: float,
        still: dict[tuple[str, ...], float],
    ) -> str:  # fmt: skip
        """Why it is not whole; empty where it is."""
        if save.whole is False:
            return save.why
        if _open(members, written):
            return "it is open for writing"
        wait = STILL_S if save.whole is None else _KNOWN_S
        since = still[_together(save.path)] if save.whole is None else self._still_s(members, now)
        if since < wait:
            return "it was written to just now"
        if not self._ended and now - self._deleted.get(save.path, float("-inf")) < STILL_S:
            return "it is being deleted"
        if not self._ended and not any(each.kind not in ("folder", "link") for each in members):
            return "it is empty"
        return next(filter(None, (self._torn(entry) for entry in members if entry.kind == "file")), "")

    def _others(
        self, rest: list[FolderEntry], carried: set[str], written: Collection[str], now: float, *, known: bool
    ) -> tuple[list[FolderEntry], dict[str, str], list[str]]:
        """What is in no save: what of it goes along, what of it is torn, and whether to wait for it. Where saves are
        known it goes along as it is; else it is the save, and stands still as a whole."""
        torn: dict[str, str] = {}
        take = []
        unsettled = []
        for entry in rest:
            aside = is_aside(entry.path)
            if entry.kind == "file" and entry.path not in carried:
                busy = entry.path in written or self._still_s([entry], now) < STILL_S
                if busy and not (known and entry.path in written):
                    unsettled.append(entry.path)
                if not busy and not aside and (why := self._torn(entry)):
                    torn[entry.path] = why
                    continue
            if not aside:
                take.append(entry)
        return take, torn, unsettled

    def _torn(self, entry: FolderEntry) -> str:
        known = self._formats.get(entry.path)
        if known is None or known[0] != sign(entry):
            known = self._formats[entry.path] = sign(entry), is_torn(self._folder / entry.path)
        return known[1]

    def _note(self, entries: list[FolderEntry], now: float, wall_ns: int) -> None:
        first = not self._since
        since = {}
        for entry in entries:
            if entry.kind == "folder":
                continue
            known = self._since.get(entry.path)
            if known and known[0] == sign(entry):
                since[entry.path] = known
            else:  # what was there before anybody looked has stood still for as long as its time says
                age = max(0.0, (wall_ns - entry.mtime_ns) / 1e9) if first else 0.0
                since[entry.path] = sign(entry), now - age
        for path in self._since.keys() - since.keys():
            self._deleted |= dict.fromkeys(above(path), now)
        self._since = since
        self._formats = {path: known for path, known in self._formats.items() if path in since}

    def _still_s(self, members: list[FolderEntry], now: float) -> float:
        if self._ended:
            return float("inf")
        times = [self._since[each.path][1] for each in members if each.path in self._since and not is_loose(each.path)]
        return now - max(times, default=float("-inf"))

    def _step(self, saves: dict[str, Save], whole: set[str], members: dict[str, list[FolderEntry]]) -> int | None:
        """Of the newest save: the program goes on from there."""

        def written(path: str) -> int:
            return max((each.mtime_ns for each in members[path] if each.kind != "folder"), default=0)

        newest = max(whole, key=written, default=None)
        if newest is None:
            return None
        told = self._said.steps.get(newest)
        return told if told is not None else step_in(newest)


def _together(path: str) -> tuple[str, ...]:
    """Files of one step are one save: model-10.pt and optimizer-10.pt."""
    place, _, name = path.rpartition("/")
    step = step_in(name)
    return place, str(step) if step is not None else "".join(filter(str.isdigit, name)) or name


def _open(members: list[FolderEntry], written: Collection[str]) -> bool:
    return any(entry.path in written and not is_loose(entry.path) for entry in members)


def _leads_into(entry: FolderEntry, half: Collection[str]) -> bool:
    """Whether it is a link to, or the second name of a file in, a save that is not whole."""
    if entry.kind not in ("link", "hard"):
        return False
    parts = entry.path.split("/")[:-1] if entry.kind == "link" else []
    for part in entry.target.split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part != ".":
            parts.append(part)
    return any(path in half for path in above("/".join(parts)))
