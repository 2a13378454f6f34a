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
_OUTPUT_S = 1.0  # what holds its output and is not ended with it is not waited for


async def run_helper(
    what: str, command: Sequence[str], *, folder: Path, env: Mapping[str, str], timeout: float
) -> None:
    """Run `command` in `folder`. Raises PrepareError, with its last lines, where it fails or has no end in time."""
    last: deque[str] = deque(maxlen=_LAST_LINES)
    # A pipe of our own: asyncio's would make the program's end wait for whatever else holds its output.
    output, its_end = os.pipe()
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(output, "rb", 0)
    )
    telling = asyncio.create_task(_tell(reader, what, last))
    try:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=folder,
                env=dict(env),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=its_end,
                stderr=its_end,
                start_new_session=True,
            )
        except OSError as error:
            raise PrepareError(f"{what} can't be started: {error}") from error
        finally:
            os.close(its_end)
        try:
            async with asyncio.timeout(timeout):
                await process.wait()
        except TimeoutError:
            raise PrepareError(
                _with(last, f"{what} had no end after {timeout:.0f} s: supervision.prepare_timeout")
            ) from None
        finally:  # it, and whatever it left behind
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        await asyncio.wait({telling}, timeout=_OUTPUT_S)
        if process.returncode:
            raise PrepareError(_with(last, f"{what} failed with exit status {process.returncode}"))
    finally:
        telling.cancel()
        transport.close()


async def _tell(reader: asyncio.StreamReader, what: str, last: deque[str]) -> None:
    rest = b""
    while piece := await reader.read(1 << 16):
        *lines, rest = (rest + piece).replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            _say(line, what, last)
        if len(rest) > _LONGEST_LINE:
            _say(rest, what, last)
            rest = b""
    _say(rest, what, last)


def _say(line: bytes, what: str, last: deque[str]) -> None:
    if text := line.decode(errors="replace").strip()[:_LONGEST_LINE]:
        last.append(text)
        log.info("prepare_output", what=what, message=text)


def _with(last: deque[str], why: str) -> str:
    return "\n  ".join([f"{why}. Its last lines:", *last]) if last else why
