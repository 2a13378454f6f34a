"""Own end: a session's program ended by itself with exit status 0. Is the run complete, and what is missing where not?

At its interpreter's exit the library saves the last boundary and waits for it, so that such a program needs no word to
say that it is done. Who never opened a session, or whose last step is not safe, is not done, whatever its exit status.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from agent.trainer.attempt import Attempt

_COMMIT_TIMEOUT_S = 600.0


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
    saver = attempt.host.saver
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_COMMIT_TIMEOUT_S):
            await attempt.line_learned()
            await saver.wait_committed(step=step, timeout=_COMMIT_TIMEOUT_S)
    if not saver.line_known:
        return Missing(f"whether its last step, {step}, is in the bucket is not known: the bucket gave no answer")
    if saver.committed_step < step:
        return Missing(f"its last step, {step}, is not in the bucket; the newest there is {saver.committed_step}")
    return None


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
