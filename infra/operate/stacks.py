"""The synthesized stacks, and Terraform or OpenTofu at work on them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from infra.operate.programs import ProgramError, capture, hand_over, hand_over_and_listen

_INIT_S = 600.0  # the first one fetches Google's provider, 100 MB
_PLAN_S = 900.0
_APPLY_S = 3600.0
_PLAN = "spot.tfplan"


_FORBIDDEN = re.compile(r"\bError (?:401|403)\b|PERMISSION_DENIED|SERVICE_DISABLED|accessNotConfigured|\bactAs\b")


class Refused(ProgramError):
    """Google forbade something. What was granted minutes ago may be what it waits for."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """One stack of the app, in a folder that Terraform works in."""

    name: str
    folder: Path


def read_stacks(out: Path) -> list[Stack]:
    """The stacks that the app has written below `out`, each after those that it depends on."""
    manifest = json.loads((out / "manifest.json").read_text())["stacks"]
    needs = {name: set(entry.get("dependencies", [])) for name, entry in manifest.items()}
    order = TopologicalSorter(needs).static_order()
    return [Stack(name=name, folder=out / manifest[name]["workingDirectory"]) for name in order]


@dataclass(frozen=True, kw_only=True)
class Terraform:
    """`program`: terraform or tofu. All methods raise ProgramError with the program's last lines."""

    program: str

    def init(self, stack: Stack) -> None:
        # The folder is the same for every run file, the state is not: what was remembered of another is dropped.
        capture([self.program, "init", "-input=false", "-no-color", "-reconfigure"], timeout=_INIT_S, cwd=stack.folder)

    def plan(self, stack: Stack, *, destroy: bool = False, target: str | None = None) -> bool:
        """Show what would change, of `target` alone where it is given, and keep the plan; False: nothing would."""
        command = [self.program, "plan", "-input=false", "-detailed-exitcode", f"-out={_PLAN}"]
        command += ["-destroy"] if destroy else []
        command += [f"-target={target}"] if target else []
        status = hand_over(command, timeout=_PLAN_S, cwd=stack.folder)
        if status not in (0, 2):
            raise ProgramError(f"{self.program} plan of stack {stack.name} ended with {status}; it says why above")
        return status == 2

    def changes(self, stack: Stack) -> list[dict[str, Any]]:
        """What the plan that is kept would do, as Terraform's `resource_changes`."""
        shown = capture([self.program, "show", "-json", "-no-color", _PLAN], timeout=_PLAN_S, cwd=stack.folder).out
        changes: list[dict[str, Any]] = json.loads(shown or "{}").get("resource_changes", [])
        return changes

    def apply(self, stack: Stack) -> None:
        """Do what was planned, and nothing else. Raises Refused where Google forbade something."""
        status, said = hand_over_and_listen(
            [self.program, "apply", "-input=false", _PLAN], timeout=_APPLY_S, cwd=stack.folder
        )
        if status:
            raise (Refused if _FORBIDDEN.search(said) else ProgramError)(
                f"{self.program} apply of stack {stack.name} ended with {status}; it says why above\n"
                "    fix: mend it, and deploy again: what is made already stays as it is"
            )

    def drop_plan(self, stack: Stack) -> None:
        (stack.folder / _PLAN).unlink(missing_ok=True)

    def addresses(self, stack: Stack) -> list[str]:
        """What the state holds."""
        done = capture([self.program, "state", "list"], timeout=_PLAN_S, cwd=stack.folder, accept=(0, 1))
        if done.code and "No state file" not in done.err:
            raise ProgramError(f"{self.program} state list of stack {stack.name}: {done.err.strip()}")
        return done.out.split()

    def adopt(self, stack: Stack, address: str, name: str) -> None:
        """Take something that is there already into the state."""
        capture([self.program, "import", "-input=false", address, name], timeout=_PLAN_S, cwd=stack.folder)

    def forget(self, stack: Stack, addresses: Sequence[str]) -> None:
        """Take something out of the state; it stays as it is."""
        capture([self.program, "state", "rm", *addresses], timeout=_PLAN_S, cwd=stack.folder)
