"""Own end: a program ended by itself with exit status 0. Is the run complete, and what is missing where not?

At its interpreter's exit the library saves the last boundary and waits for it, so that such a program needs no word to
say that it is done. Who never opened a session, or whose last step is not safe, is not done, whatever its exit status.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from agent.program.maker import code_folder
from agent.trainer.attempt import Attempt
from agent.trainer.folder.link import FolderLink

_COMMIT_TIMEOUT_S = 600.0
_FINAL_SAVE_S = 600.0
_NOT_ITS_OWN = {".git", ".venv", "__pycache__", "out"}
_MOST_LOOKED_AT, _MOST_TOLD = 20_000, 3


@dataclass(frozen=True)
class Missing:
    """Why the run is not complete. `everywhere`: the program would do the same on any VM."""

    what: str
    everywhere: bool = False


async def what_is_missing(attempt: Attempt) -> Missing | None:
    """None where the run is complete with `attempt.last_step`. What it staged has some minutes to be committed."""
    if missing := _of_the_session(attempt):
        return missing
    step = attempt.last_step
    if step is None:
        return Missing("it ended while no agent was there, and which step it had reached is not known")
    if step == 0:
        return Missing("it ended before its first step: nothing was trained", everywhere=True)
    saver, leg = attempt.host.saver, attempt.host.leg
    if leg is not None and not leg.last and step < leg.end:
        return Missing(f"it ended at step {step}, and this machine's {leg.title} end with step {leg.end}")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_COMMIT_TIMEOUT_S):
            await attempt.line_learned()
            await saver.wait_committed(step=step, timeout=_COMMIT_TIMEOUT_S)
    if not saver.line_known:
        return Missing(f"whether its last step, {step}, is in the bucket is not known: the bucket gave no answer")
    if saver.committed_step < step:
        return Missing(f"its last step, {step}, is not in the bucket; the newest there is {saver.committed_step}")
    return None


async def what_a_folder_misses(attempt: Attempt, link: FolderLink) -> Missing | None:
    """The same for a program that saves to a folder: that is saved once more, and is the run's result."""
    if attempt.launcher_gone:
        return Missing(
            "what was started has ended and left the program itself running in the background, so that how that ended "
            "is not known: start it in the foreground (`exec`, or `wait` for it)"
        )
    if not await asyncio.to_thread(_holds_a_file, link.folder):
        place = code_folder(attempt.host.run, attempt.host.run_file, attempt.host.state_dir)
        since = time.time() - (time.monotonic() - attempt.process.started)
        elsewhere = await asyncio.to_thread(_written_elsewhere, place, link.folder, since)
        wrote = f" (it wrote {', '.join(elsewhere)})" if elsewhere else ""
        return Missing(
            f"{link.folder}, where its result should be, holds no file: name the folder that it saves to in "
            f"workload.checkpoint_dir{wrote}",
            everywhere=True,
        )
    await link.save("final", deadline=None, timeout=_FINAL_SAVE_S)
    return None


def _holds_a_file(folder: Path) -> bool:
    return any(path.is_file() for path in folder.rglob("*"))


def _written_elsewhere(place: Path, folder: Path, since: float) -> list[str]:
    """The largest files below `place` that are newer than `since` (a time of day) and not in `folder`."""
    found: list[tuple[int, str]] = []
    looked = 0
    for at, folders, names in os.walk(place):
        folders[:] = [name for name in folders if name not in _NOT_ITS_OWN and Path(at, name) != folder]
        for name in names:
            with contextlib.suppress(OSError):
                info = Path(at, name).stat()
                if info.st_mtime >= since:
                    found.append((info.st_size, str(Path(at, name).relative_to(place))))
        looked += len(names)
        if looked > _MOST_LOOKED_AT:
            break
    return [name for _, name in sorted(found, reverse=True)[:_MOST_TOLD]]


def _of_the_session(attempt: Attempt) -> Missing | None:
    if attempt.was_restored:
        return None
    if attempt.process.adopted:
        return Missing("it ended while no agent was there, and whether it had opened a session is not known")
    if attempt.pid is None:
        return Missing(
            "it never opened a session, so that nothing of it was saved: call spot_training.Session.open() and "
            "session.track(...) before the loop, or write kind: command for a program that saves its own files",
            everywhere=True,
        )
    return Missing("it opened a session and never called session.track(...): nothing of it was saved", everywhere=True)
