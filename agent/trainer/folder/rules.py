"""Rules: what the frameworks' own saves look like, and which of their files is written last.

Hugging Face's Trainer (`_save_checkpoint`): `trainer_state.json` after model, optimizer and random states. torch DCP
(`FileSystemWriter.finish`): `.metadata`, renamed into place after all `.distcp`. Accelerate (`save_accelerator_state`):
`random_states_N.pkl`. DeepSpeed (`save_checkpoint`): `latest`, beside the folder that it names. Megatron-LM:
`latest_checkpointed_iteration.txt`. Lightning: one `.ckpt`, moved into place. Looked up in transformers 5.24,
torch 2.13, accelerate 1.15, deepspeed 0.19 and lightning 2.6.

A save that lacks its last file is half only where it is sure whose save it is; else nobody knows.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase, translate
from functools import lru_cache
from pathlib import Path

from agent.checkpoint.listing import TOP, FolderEntry
from agent.trainer.folder.loose import is_loose

_ASIDE = ("*.tmp", "*.tmp-*", "tmp-*", ".tmp*", "*.part", "*.partial", "*.incomplete", "*.orbax-checkpoint-tmp*")
_ASIDE_NAME = re.compile("|".join(map(translate, _ASIDE)), re.DOTALL)
_NUMBER = re.compile(r"\d+")
_STEP = re.compile(
    r"(?:global[_-]?step|step|iter(?:ation)?|checkpoint|ckpt|update|batch)s?[=_-]?0*(\d+)(?!\d)", re.IGNORECASE
)
_NUMBERED = re.compile(r"(?:step|iter|checkpoint|ckpt|epoch|update|batch|round)[a-z]*[=_-]?\d", re.IGNORECASE)
_INCOMPLETE = "checkpoint-is-incomplete.txt"
"""What Hugging Face's `enable_jit_checkpoint` takes away when its save is done."""
_TAGS = {"latest": ("_model_states.pt", "_optim_states.pt"), "latest_checkpointed_iteration.txt": (".pt", ".distcp")}


@dataclass(frozen=True)
class Save:
    """One save of the program's: `path`, below its folder, is a folder or a file. `whole`: None where nobody knows,
    so that it has to stand still. `why`: what it lacks."""

    path: str
    whole: bool | None
    why: str = ""

    def holds(self, path: str) -> bool:
        """Whether `path` is part of it."""
        return not self.path or path == self.path or path.startswith(f"{self.path}/")


def is_aside(path: str) -> bool:
    """Whether it is what becomes something else once it is whole, by the name it has until then."""
    return any(map(_ASIDE_NAME.match, path.split("/")))


def step_in(path: str) -> int | None:
    """The step that a save's name tells; `epoch=1-step=120.ckpt` is 120."""
    for name in reversed(path.split("/")):
        if found := _STEP.findall(name):
            return int(found[-1])
    return None


def shape(path: str) -> str:
    """A name without its numbers: saves of one program have the same."""
    return _NUMBER.sub("#", path)


def saves_by_rule(entries: Iterable[FolderEntry], folder: Path) -> list[Save]:
    """The saves whose framework is known, the outermost of each."""
    inside: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        at, _, name = entry.path.rpartition("/")
        if entry.path != TOP:
            inside[at].add(name)
    found: list[Save] = []
    for at in sorted(inside, key=lambda path: path.count("/") + bool(path)):
        if not any(save.holds(at) for save in found if save.path):
            found += _below(at, inside, folder)
    return found


def saves_by_name(entries: Iterable[FolderEntry]) -> list[Save]:
    """What is called as saves are, with a number: whether they are whole nobody knows."""
    found: dict[str, Save] = {}
    for entry in entries:
        at, _, name = entry.path.rpartition("/")
        inside = any(path in found for path in above(at))
        if entry.kind != "link" and not inside and _NUMBERED.search(name) and not is_aside(name):
            found[entry.path] = Save(entry.path, None)
    return list(found.values())


def above(path: str) -> list[str]:
    """The path and those it is in."""
    if "/" not in path:
        return [path]
    return [*_above_folder(path.rpartition("/")[0]), path]


@lru_cache(maxsize=4096)
def _above_folder(folder: str) -> list[str]:
    parts = folder.split("/")
    return ["/".join(parts[: at + 1]) for at in range(len(parts))]


def saves_by_glob(entries: Iterable[FolderEntry], pattern: str) -> list[Save]:
    """The user's `complete_when`: a folder that its first part matches is whole once it holds what the last part
    matches, and that was written last where the folder is all there is."""
    place_of, _, name = pattern.rpartition("/")
    listed = list(entries)
    places = [""] if not place_of else [
        entry.path for entry in listed
        if entry.kind == "folder" and entry.path.count("/") == place_of.count("/")
        and all(map(fnmatchcase, entry.path.split("/"), place_of.split("/")))
    ]  # fmt: skip
    saves = []
    for place in places:
        prefix = f"{place}/" if place else ""
        marks = [
            each for each in listed
            if each.path.startswith(prefix) and fnmatchcase(each.path.removeprefix(prefix), name)
        ]  # fmt: skip
        newest = max((each.mtime_ns for each in marks), default=0)
        later = [each.path for each in listed if each.mtime_ns > newest and each.kind == "file"
                 and not is_loose(each.path)] if marks and not place else []  # fmt: skip
        why = f"it has no {name} yet" if not marks else f"{later[0]} is newer than {name}" if later else ""
        saves.append(Save(place, not why, why))
    return saves


def _below(at: str, inside: dict[str, set[str]], folder: Path) -> list[Save]:
    """`at` itself where it is a save, else those directly in it that are."""
    prefix = f"{at}/" if at else ""
    children = {name: inside.get(prefix + name, set()) for name in inside[at]}
    if any(name.endswith(".distcp") for name in children) or ".metadata.tmp" in children:
        return [_last(at, children.keys(), ".metadata")]
    found = [Save(prefix + name, True) for name in children if name.endswith(".ckpt") and not children[name]]
    for tag_file, ends in _TAGS.items():
        tagged = [name for name, files in children.items() if any(file.endswith(ends) for file in files)]
        if tag_file in children:
            found += [_by_tag(prefix + name, folder / prefix / tag_file) for name in tagged if step_in(name)]
    for marks, last in (
        ({"trainer_state.json", "training_args.bin"}, "trainer_state.json"),
        ({"random_states_0.pkl"}, "random_states_0.pkl"),
    ):
        known = {shape(name) for name, files in children.items() if marks & files}
        found += [
            _last(prefix + name, files, last) for name, files in children.items() if files and shape(name) in known
        ]
    if not at and "random_states_0.pkl" in children:
        found.append(Save("", None))
    once = {save.path: save for save in reversed(found)}
    return list(once.values())


def _last(path: str, names: Collection[str], last: str) -> Save:
    if last not in names:
        return Save(path, False, f"it has no {last} yet")
    return Save(path, False, f"it has {_INCOMPLETE} still") if _INCOMPLETE in names else Save(path, True)


def _by_tag(path: str, tag_file: Path) -> Save:
    try:
        tag = tag_file.read_text().strip()
    except (OSError, ValueError):
        tag = ""
    named, own = _NUMBER.findall(tag), step_in(path)
    whole = bool(named) and own is not None and own <= int(named[-1])
    return Save(path, True) if whole else Save(path, False, f"{tag_file.name} does not name it yet")
