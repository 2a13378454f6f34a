"""A helper program that prepares something: its output is told as it comes, and it ends in time, or is ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from agent.program.trouble import PrepareError

log = structlog.get_logger()

_LAST_LINES = 20
_LONGEST_LINE = 4000


async def run_helper(
    what: str, command: Sequence[str], *, folder: Path, env: Mapping[str, str], timeout: float
) -> None:
    """Run `command` in `folder`. Raises PrepareError, with its last lines, where it fails or has no end in time."""
    last: deque[str] = deque(maxlen=_LAST_LINES)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env=dict(env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise PrepareError(f"{what} can't be started: {error}") from error
    try:
        async with asyncio.timeout(timeout):
            await asyncio.gather(_tell(process, what, last), process.wait())
    except TimeoutError:
        raise PrepareError(_with(last, f"{what} had no end after {timeout:.0f} s")) from None
    finally:  # whatever it left behind, too
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if process.returncode:
        raise PrepareError(_with(last, f"{what} failed with exit status {process.returncode}"))


async def _tell(process: asyncio.subprocess.Process, what: str, last: deque[str]) -> None:
    assert process.stdout is not None
    rest = b""
    while piece := await process.stdout.read(1 << 16):
        *lines, rest = (rest + piece).replace(b"\r", b"\n").split(b"\n")
        for line in [*lines, *([rest] if len(rest) > _LONGEST_LINE else [])]:
            _say(line, what, last)
        rest = b"" if len(rest) > _LONGEST_LINE else rest
    _say(rest, what, last)


def _say(line: bytes, what: str, last: deque[str]) -> None:
    if text := line.decode(errors="replace").strip()[:_LONGEST_LINE]:
        last.append(text)
        log.info("prepare_output", what=what, message=text)


def _with(last: deque[str], why: str) -> str:
    return "\n  ".join([f"{why}. Its last lines:", *last]) if last else why
