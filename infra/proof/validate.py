"""`python -m infra.proof.validate FOLDER`: Terraform's (or OpenTofu's) own word on the stacks, with Google's plugin.

The plugin comes from the registry, a mirror or a cache, as Terraform's own settings say; it needs no login. Where it is
not to be had nothing was validated: that is said, and the exit status is 2. It is 1 for a mistake.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from infra.operate.programs import ProgramError, capture, require

_INIT_S = 300.0  # the first one fetches the plugin, 100 MB
_VALIDATE_S = 120.0


class NotValidated(Exception):
    """Nothing was found out about a stack; the text says why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    stack: str
    mistakes: list[str]
    warnings: list[str]


def validate(out: Path, *, program: str) -> Iterator[Verdict]:
    """One after the other, in folders of their own: nothing is left in `out`. Raises NotValidated.

    `program`: terraform or tofu.
    """
    files = sorted(out.glob("stacks/*/cdk.tf.json"))
    if not files:
        raise NotValidated(f"{out} has no stacks/NAME/cdk.tf.json\n    fix: make synth")
    # All stacks use the same plugin: it is fetched once.
    if "TF_PLUGIN_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spot-training" / "terraform"
        cache.mkdir(parents=True, exist_ok=True)
        os.environ["TF_PLUGIN_CACHE_DIR"] = str(cache)
        # Without a lock file Terraform would fetch it again to learn its digest. These folders are thrown away.
        os.environ["TF_PLUGIN_CACHE_MAY_BREAK_DEPENDENCY_LOCK_FILE"] = "1"
    for file in files:
        with tempfile.TemporaryDirectory(prefix="spot-validate-") as folder:
            shutil.copy(file, folder)
            yield _validate(file.parent.name, Path(folder), program)


def _validate(stack: str, folder: Path, program: str) -> Verdict:
    init = [program, "init", "-backend=false", "-input=false", "-no-color"]
    try:
        # A mistake that init finds by itself is told again, better, by validate.
        initialised = capture(init, timeout=_INIT_S, cwd=folder, accept=(0, 1))
        done = capture([program, "validate", "-json", "-no-color"], timeout=_VALIDATE_S, cwd=folder, accept=(0, 1))
    except ProgramError as error:
        raise NotValidated(f"stack {stack}: {error}") from None
    try:
        said = json.loads(done.out)["diagnostics"]
    except (ValueError, KeyError):
        raise NotValidated(f"stack {stack}: {program} validate said {done.out!r} {done.err!r}") from None
    if any(one["summary"] == "Missing required provider" for one in said):
        why = " ".join(_reason(initialised.err).split())
        raise NotValidated(
            f"stack {stack}: {program} has no plugin for Google: {why}\n"
            "    fix: run it where registry.terraform.io can be reached, or give Terraform a filesystem mirror"
        )
    return Verdict(
        stack=stack,
        mistakes=[_line(one) for one in said if one["severity"] == "error"],
        warnings=[_line(one) for one in said if one["severity"] != "error"],
    )


def _reason(text: str) -> str:
    """The first error of what `init` wrote, without Terraform's frame around it."""
    return text.replace("│", " ").partition("Error: ")[2].partition("To see which modules")[0] or text


def _line(said: dict[str, Any]) -> str:
    where = (said.get("snippet") or {}).get("context") or ""
    return " ".join(f"{where}: {said['summary']}: {said.get('detail', '')}".removeprefix(": ").split())


def main() -> None:
    console = Console(soft_wrap=True)
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "cdktf.out")
    status = 0
    try:
        program = require("terraform", "tofu")
        for verdict in validate(out, program=program):
            console.print(f"{verdict.stack}: {'invalid' if verdict.mistakes else 'valid'}, says {program}")
            for mistake in verdict.mistakes:
                console.print(Text(mistake, style="bold red"))
            for warning in verdict.warnings:
                console.print(Text(warning, style="yellow"))
            status |= bool(verdict.mistakes)
    except (ProgramError, NotValidated) as error:
        console.print(Text(f"NOT VALIDATED. {error}", style="bold yellow"))
        sys.exit(2)
    sys.exit(status)


if __name__ == "__main__":
    main()
