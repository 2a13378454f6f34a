"""The lock file's blocks: each package with its hashes, and what needs it. PyTorch is in no lock, and neither is what
it alone needs: which build fits depends on the machine, and the CPU's needs none of 4 GB of CUDA.

`python -m infra.stacks.packages.lock LOCK EXTRA...` writes LOCK without what neither the project nor those extras need.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_BLOCK = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==.*(?:\n .*)*", re.MULTILINE)
_BY_CHOICE = "torch"
_NEEDED_TO_INSTALL = ("setuptools",)  # builds the project itself, and no Python from 3.12 on brings it
_ROOT = Path(__file__).parents[3]


class Lock:
    """A lock file's text, as pip-compile writes it."""

    def __init__(self, text: str) -> None:
        self.head = text[: text.index("\n", text.rindex("#\n", 0, text.index("==")) if "#\n" in text else 0) + 1]
        self.blocks = {normal(found[1]): found[0].rstrip() for found in _BLOCK.finditer(text)}
        self._needs: dict[str, set[str]] = {}
        for name, block in self.blocks.items():
            for parent in re.findall(r"^ +#(?: +via)? +([A-Za-z0-9._-]+)", block, re.MULTILINE):
                if parent != "via":
                    self._needs.setdefault(normal(parent), set()).add(name)

    def closure(self, wanted: Iterable[str]) -> set[str]:
        """The names of `wanted` and all that they need, but for PyTorch and what it alone needs."""
        found: set[str] = set()
        front = {normal(re.split(r"[\[<>=!~; ]", name, maxsplit=1)[0]) for name in wanted} - {_BY_CHOICE}
        while front:
            found |= front
            front = set().union(*(self._needs.get(name, set()) for name in front)) - found - {_BY_CHOICE}
        return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
