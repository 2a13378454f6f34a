"""Programs that we start: each with a limit in time, and an error that says what to do."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_INSTALL = {
    "gcloud": "install the Google Cloud CLI: https://cloud.google.com/sdk/docs/install",
    "terraform": "install OpenTofu (https://opentofu.org/docs/intro/install) "
    "or Terraform (https://developer.hashicorp.com/terraform/install)",
}
_INSTALL["tofu"] = _INSTALL["terraform"]
_SHOWN_LINES = 12
_ENDS_S = 60.0


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


def hand_over_and_listen(command: Sequence[str], *, timeout: float, cwd: Path | None = None) -> tuple[int, str]:
    """As `hand_over`; returns the status, and what the program wrote as errors, which the operator sees as well."""
    require(command[0])
    said: list[str] = []

    def pass_on(errors: IO[str]) -> None:
        for line in errors:
            said.append(line)
            sys.stderr.write(line)
            sys.stderr.flush()

    with subprocess.Popen(list(command), cwd=cwd, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        listener = threading.Thread(target=pass_on, args=(running.stderr,), daemon=True)
        listener.start()
        try:
            status = running.wait(timeout)
        except BaseException as error:
            running.terminate()  # Terraform writes its state, and gives its lock back
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(_ENDS_S)
            running.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise ProgramError(f"stopped after {timeout:g} s: {shlex.join(command)}") from None
            raise
        listener.join(_ENDS_S)
    return status, "".join(said)
