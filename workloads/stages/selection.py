"""Which parameters a stage trains: glob patterns of module names, and what they come to in a model."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from workloads.errors import SettingsError

Named = dict[str, nn.Parameter]
"""Parameters by their names in the model; one that is tied is there once, by its first name."""


def select(model: nn.Module, entries: Sequence[Sequence[str]], *, where: str) -> list[Named]:
    """The parameters that each of `entries` names: those of every module that one of its patterns matches, and those
    that it matches themselves. The first entry that names a parameter has it.

    Raises:
        SettingsError: a pattern matches nothing, or nothing that is left; with the nearest names. `where` is the place
            in the run file.
    """
    inside = _inside(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    taken: set[int] = set()
    selected = []
    for number, patterns in enumerate(entries):
        found: dict[int, nn.Parameter] = {}
        for pattern in patterns:
            matched = [name for name in inside if fnmatchcase(name, pattern)]
            held = {id(parameter): parameter for name in matched for parameter in inside[name]}
            if not held:
                raise SettingsError(f"{where}.train[{number}].modules: {pattern!r} {_nothing(pattern, inside)}")
            found |= held
        left = {names[key]: parameter for key, parameter in found.items() if key not in taken}
        if not left:
            raise SettingsError(
                f"{where}.train[{number}].modules: all that {', '.join(patterns)} names is trained by the entries "
                f"before it: put it in front of them, or leave it out"
            )
        taken |= found.keys()
        selected.append({name: left[name] for name in names.values() if name in left})
    return selected


def _inside(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """What can be named, and the parameters in it: modules by their paths, and the parameters themselves."""
    inside = {name: list(module.parameters()) for name, module in model.named_modules(remove_duplicate=False) if name}
    return inside | {name: [parameter] for name, parameter in model.named_parameters(remove_duplicate=False)}


def _nothing(pattern: str, inside: dict[str, list[nn.Parameter]]) -> str:
    if any(fnmatchcase(name, pattern) for name in inside):
        return "has no parameters"
    near = difflib.get_close_matches(pattern.strip("*."), inside, n=3, cutoff=0.5) or _tops(inside)
    return f"matches no module: did you mean {', '.join(near)}?"


def _tops(names: Iterable[str]) -> list[str]:
    return sorted({name.partition(".")[0] for name in names})
