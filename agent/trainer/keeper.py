"""Keeper: the parent of each trainer, a few lines of shell.

It waits for the command, so that a trainer whose agent died before it was noted never begins; and it notes the exit
status, which only a parent can ask for: an agent that adopts it is none. Signals to the trainer's group are not for it.
systemd's protection of the agent from the out-of-memory killer is not for what eats the memory. What the command leaves
behind, in a session of its own even, becomes its child, and is waited for: so the agent finds it, and ends it.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
from pathlib import Path

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
_LIBC = ctypes.PyDLL(None)
KEEPER = """\
trap : HUP INT QUIT ABRT ALRM TERM USR1 USR2
go=$(cat)
[ "${go##*#}" = go ] || exit 1
echo 0 2>/dev/null >/proc/self/oom_score_adj
eval "$go" </dev/null
code=$?
{ echo $code >"$1.tmp" && mv "$1.tmp" "$1"; } 2>/dev/null
left() {
  for at in /proc/[0-9]*/stat; do
    { read -r line <"$at"; } 2>/dev/null || continue
    set -- ${line##*) }
    [ "$2" = $$ ] && [ "$1" != Z ] && return 0
  done
  return 1
}
while left; do sleep 0.1; done
exit $code
"""


def adopt_orphans() -> None:
    """What this process's children leave behind becomes its own child."""
    _LIBC.prctl(_SUBREAPER, 1, 0, 0, 0)


def exit_file(log_file: Path) -> Path:
    """Where the keeper notes how the command ended."""
    return log_file.with_suffix(".exit")


def read_exit(log_file: Path) -> int | None:
    """The status that it noted; None where it did not."""
    with contextlib.suppress(OSError, ValueError):
        return int(exit_file(log_file).read_text())
    return None


def exit_code(status: int | None) -> int | None:
    """A shell's status of a child that a signal killed, 128 and its number, as Python's: negative."""
    if status is not None and status > 128:
        with contextlib.suppress(ValueError):
            return -signal.Signals(status - 128).value
    return status
