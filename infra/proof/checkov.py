"""`python -m infra.proof.checkov FOLDER`: what checkov thinks of the stacks, less what we decided otherwise.

checkov's pins clash with ours, so it lives in an environment of its own, .venv/checkov (`make checkov` makes it).
"""

from __future__ import annotations

import fnmatch
import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text

PROGRAM = Path(__file__).parents[2] / ".venv/checkov/bin/checkov"
DECISIONS = Path(__file__).with_suffix(".yaml")

_TIMEOUT_S = 300.0


class CheckovError(Exception):
    """It did not run, or saw nothing; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A check that we don't follow for one resource."""

    check: str
    resource: str
    because: str

    def covers(self, finding: Finding) -> bool:
        return finding.check == self.check and fnmatch.fnmatchcase(finding.resource, self.resource)


@dataclass(frozen=True, kw_only=True)
class Finding:
    check: str
    title: str
    stack: str
    resource: str
    """Its name in the stack: checkov names no type of it where the stack is JSON."""

    def __str__(self) -> str:
        return f"{self.stack}: {self.resource}: {self.title} ({self.check})"


@dataclass(frozen=True, kw_only=True)
class Opinion:
    passed: int
    findings: list[Finding]
    decisions: list[Decision]

    @cached_property
    def undecided(self) -> list[Finding]:
        """What has to be mended, or justified."""
        return [found for found in self.findings if not any(one.covers(found) for one in self.decisions)]

    @cached_property
    def unneeded(self) -> list[Decision]:
        """Decisions about nothing in these stacks."""
        return [one for one in self.decisions if not any(one.covers(found) for found in self.findings)]


def read_decisions(path: Path = DECISIONS) -> list[Decision]:
    return [Decision(**{name: str(value) for name, value in one.items()}) for one in yaml.safe_load(path.read_text())]


def ask(folder: Path, *, program: Path = PROGRAM) -> Opinion:
    """Scans all stacks below `folder`. Raises CheckovError, also where nothing at all was scanned."""
    # `terraform` instead of `terraform_json` reads no JSON, and finds nothing wrong in it.
    options = ["--framework", "terraform_json", "--skip-download", "--compact", "--output", "json"]
    try:
        done = subprocess.run(
            [program, *options, "--directory", folder],
            capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
    except OSError as error:
        raise CheckovError(f"{program} does not start: {error}\n    fix: make checkov") from None
    except subprocess.TimeoutExpired:
        raise CheckovError(f"{program} was not done after {_TIMEOUT_S:.0f} s") from None
    try:
        said: dict[str, Any] = json.loads(done.stdout)
        summary, failed = said["summary"], said["results"]["failed_checks"]
    except (ValueError, KeyError, TypeError):
        raise CheckovError(
            f"checkov looked at nothing in {folder}: {done.stdout.strip()} {done.stderr.strip()}"
        ) from None
    if summary["parsing_errors"] or not summary["passed"] + summary["failed"]:
        raise CheckovError(f"checkov could not read {folder}: {json.dumps(summary)}")
    findings = [
        Finding(
            check=one["check_id"],
            title=one["check_name"],
            stack=Path(one["file_path"]).parent.name,
            resource=one["resource"].rpartition(".")[2],
        )
        for one in failed
    ]
    return Opinion(passed=summary["passed"], findings=findings, decisions=read_decisions())


def main() -> None:
    console = Console(soft_wrap=True)
    for folder in map(Path, sys.argv[1:] or ["cdktf.out"]):
        try:
            opinion = ask(folder)
        except CheckovError as error:
            sys.exit(str(error))
        for found in opinion.undecided:
            console.print(Text(str(found), style="bold red"))
            console.print(Text(f"    fix: mend it, or say in {DECISIONS.name} why not", style="green"))
        decided = len(opinion.findings) - len(opinion.undecided)
        console.print(
            f"{folder}: {opinion.passed} checks passed, {decided} decided otherwise ({DECISIONS.name}), "
            f"{len(opinion.undecided)} to mend"
        )
        if opinion.undecided:
            sys.exit(1)


if __name__ == "__main__":
    main()
