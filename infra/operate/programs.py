"""Programs that we start: each with a limit in time, and an error that says what to do."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_INSTALL = {
    "gcloud": "install the Google Cloud CLI: https://cloud.google.com/sdk/docs/install",
    "terraform": "install OpenTofu (https://opentofu.org/docs/intro/install) "
    "or Terraform (https://developer.hashicorp.com/terraform/install)",
}
_INSTALL["tofu"] = _INSTALL["terraform"]
_SHOWN_LINES = 12


class ProgramError(Exception):
    """A program is not there, took too long or failed; the text says which, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How a program ended, and what it wrote."""

    code: int
    out: str
    err: str


def find(*names: str) -> str | None:
    """The first of `names` that is on PATH."""
    return next((name for name in names if shutil.which(name)), None)


def require(*names: str) -> str:
    """As `find`. Raises ProgramError, with how to install it, where there is none."""
    found = find(*names)
    if found is None:
        raise ProgramError(f"{' or '.join(names)} is not on PATH\n    fix: {_INSTALL[names[0]]}")
    return found


def capture(
    command: Sequence[str], *, timeout: float, cwd: Path | None = None, accept: Sequence[int] = (0,), stdin: str = ""
) -> Ran:
    """Run `command` and keep what it writes. Raises ProgramError unless it ends with a status of `accept` in time."""
    require(command[0])
    try:
        done = subprocess.run(
            list(command), cwd=cwd, input=stdin, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise ProgramError(f"no end after {timeout:g} s: {shlex.join(command)}") from None
    if done.returncode not in accept:
        last = "\n  ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-_SHOWN_LINES:])
        raise ProgramError(f"exit status {done.returncode}: {shlex.join(command)}\n  {last}")
    return Ran(code=done.returncode, out=done.stdout, err=done.stderr)


def hand_over(
    command: Sequence[str], *, timeout: float | None, cwd: Path | None = None, env: dict[str, str] | None = None
) -> int:
    """Run `command` on the operator's terminal and return its status; None: for as long as the operator likes.

    Raises ProgramError: it is not there, or was stopped after `timeout` seconds.
    """
    require(command[0])
    try:
        return subprocess.run(
            list(command), cwd=cwd, env=os.environ | (env or {}), timeout=timeout, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        raise ProgramError(f"stopped after {timeout:g} s: {shlex.join(command)}") from None
