"""What the trainer and the agent say to each other over the unix socket.

The way of the data is one way: the trainer stages tensors into arenas and says so (`Staging`, `Staged`);
the agent drains, commits and answers (`Committed`). Times are `time.monotonic()` seconds, which processes
of one machine share. Every message is a frozen dataclass; on the wire it is JSON with its class name.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal

PROTOCOL = 3
ADOPTED = frozenset({2, 3})
"""Versions that a trainer may speak which ran under an agent before this one: 2 knows no stages."""

SaveAnswer = Literal["staged", "unchanged", "none"]
"""What became of a request: a new snapshot; nothing new since the last one; no snapshot, for whatever reason."""

SaveReason = Literal["cadence", "milestone", "emergency", "final", "border", "operator"]

LAST: tuple[SaveReason, ...] = ("final", "border")
"""What a trainer saves for these is the last thing that it does."""

Phase = Literal["starting", "restoring", "training", "evaluating", "finishing"]
"""What a trainer is at. Each has a limit of its own: only in `training` must steps come one after the other."""


class ProtocolError(Exception):
    """The other side sent something that this version does not understand."""


# --- trainer -> agent ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Hello:
    """First message on a connection. `attempt` is 0 for a fresh trainer, else the one it already trains in
    (the agent was restarted under it)."""

    run_id: str
    pid: int
    rank: int = 0
    attempt: int = 0
    step: int = 0
    protocol: int = PROTOCOL


@dataclass(frozen=True)
class Arenas:
    """The trainer's arenas from now on: the first `keep` of those shared before, and new ones, whose descriptors
    travel with this message. `staged[i]` is the `Staged` of new arena i as a dict when it holds a snapshot whose commit
    was not yet heard of (the agent was restarted), else None."""

    keep: int
    staged: list[dict[str, Any] | None]
    fds: int


@dataclass(frozen=True)
class Heartbeat:
    """The trainer is alive; `step` updates are done. Sent at every boundary, at each change of phase, and every few
    seconds from a thread while it starts, restores or finishes: there the agent bounds the phase as a whole. While it
    trains or evaluates only the loop itself sends any, so that a loop that hangs is silent."""

    step: int
    boundary: bool = False
    phase: Phase = "training"


@dataclass(frozen=True)
class Line:
    """One metrics line of step `step` (committed with the first checkpoint past it). `data`: what was trained on since
    the line before it, from one place to another by what is tracked; None where nobody asks."""

    step: int
    values: dict[str, Any]
    data: dict[str, Any] | None = None


@dataclass(frozen=True)
class Staging:
    """Bytes [0, watermark) of the arena are final for the snapshot of `step`: they may be uploaded already. The first
    one, with watermark 0, comes before the first byte is written: what the arena held until now is gone."""

    arena: int
    step: int
    watermark: int


@dataclass(frozen=True)
class Staged:
    """The snapshot of boundary `step` is whole in the arena. `state` is its JSON part."""

    arena: int
    step: int
    size: int
    state: dict[str, Any]
    reason: SaveReason
    copy_s: float


@dataclass(frozen=True)
class Declined:
    """A save for `reason` was not staged; `why` is for the journal. `step` is the boundary that it would have held;
    `staged`: an earlier snapshot holds that very boundary, so nothing is missing."""

    step: int
    reason: SaveReason
    why: str
    staged: bool = False


@dataclass(frozen=True)
class Restored:
    """The trainer's tensors hold the state of `step` (0: there was nothing to restore)."""

    step: int
    seconds: float


@dataclass(frozen=True)
class Finish:
    """Training is complete; `folder` holds the result to upload."""

    step: int
    folder: str


@dataclass(frozen=True)
class StageComplete:
    """The stage of that name is done with `step`. The trainer waits for `Border` before it does anything else."""

    step: int
    stage: str


# --- agent -> trainer ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Welcome:
    """What a fresh trainer starts from. The fds of all arenas the agent holds travel with it; `restore` is the
    index of the one to restore from (None: start from scratch) and `state` its JSON part. `busy` arenas are still
    draining: read them, but don't write before their `Committed` or `Abandoned`. `passed_over`: places from and to, by
    what is tracked, of the data that the run does without; None where it never passes over any."""

    attempt: int
    busy: list[bool]
    restore: int | None
    step: int
    state: dict[str, Any]
    every_steps: int | None
    milestone_steps: int | None
    fds: int = 0
    stages: list[tuple[int, int | None]] = field(default_factory=list)
    """Of each stage the step that it ends with, and its `every_steps` instead of the run's."""
    passed_over: dict[str, Any] | None = None


@dataclass(frozen=True)
class Save:
    """Stage the newest boundary now, mid-step if need be. `deadline` is monotonic seconds. `hold`: it is this trainer's
    last one, so no further update may begin (the step under way would be lost anyway)."""

    reason: SaveReason
    deadline: float | None = None
    hold: bool = False


@dataclass(frozen=True)
class Committed:
    """The snapshot in this arena is a checkpoint now; the arena is free for the next one."""

    arena: int
    step: int


@dataclass(frozen=True)
class Abandoned:
    """The drain of this arena was given up (`why`); the arena is free."""

    arena: int
    step: int
    why: str


@dataclass(frozen=True)
class Finished:
    """The result is in the bucket and the run is marked complete: the trainer may exit."""


@dataclass(frozen=True)
class Border:
    """The answer to `StageComplete`. `here`: the next stage goes on in this process; else the trainer saves `step` for
    the reason "border" and ends, and another machine goes on."""

    step: int
    here: bool


@dataclass(frozen=True)
class Refused:
    """The agent will not work with this trainer; it must exit with `why` as its error."""

    why: str


Message = (
    Hello
    | Arenas
    | Heartbeat
    | Line
    | Staging
    | Staged
    | Declined
    | Restored
    | Finish
    | StageComplete
    | Welcome
    | Save
    | Committed
    | Abandoned
    | Finished
    | Border
    | Refused
)

_TYPES: dict[str, type[Any]] = {
    cls.__name__: cls
    for cls in (
        Hello, Arenas, Heartbeat, Line, Staging, Staged, Declined, Restored, Finish, StageComplete,
        Welcome, Save, Committed, Abandoned, Finished, Border, Refused,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Drill:
    """From `spot drill`: behave as if a notice had come. `exit` False: save, say how long it took, train on."""

    exit: bool = False


@dataclass(frozen=True)
class DrillReport:
    """How the drill went: seconds from the order to each phase."""

    phases_s: dict[str, float] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class Saved:
    """From a program of kind `command`: `path`, in its checkpoint folder, or else in `cwd`, is whole ("." is the folder
    itself). `step`: how far it has come there, in its own steps."""

    path: str = "."
    step: int | None = None
    cwd: str = ""


@dataclass(frozen=True)
class Noted:
    """The answer: the program may write to it again. `error`: why it was not noted."""

    error: str = ""


_TYPES |= {"Drill": Drill, "DrillReport": DrillReport, "Saved": Saved, "Noted": Noted}


def to_json(message: Any) -> bytes:
    """Encode a message as one JSON object."""
    values = {f.name: getattr(message, f.name) for f in dataclasses.fields(message)}
    return json.dumps({"type": type(message).__name__, **values}, separators=(",", ":")).encode()


def from_json(raw: bytes) -> Any:
    """Decode a message.

    Raises:
        ProtocolError: not JSON, an unknown type, or fields that do not fit it.
    """
    try:
        values = json.loads(raw)
        return _TYPES[values.pop("type")](**values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ProtocolError(f"unreadable message ({error!r}): {raw[:200]!r}") from error
