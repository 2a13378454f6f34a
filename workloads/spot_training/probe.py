"""Probe: what `spot rehearse` sees of a session, and where it strikes.

On where SPOT_REHEARSAL names a folder. In it, `plan.json` says where each life of the trainer is struck, and the probe
writes `life-N.jsonl`: at each boundary a digest of everything tracked, what else the loop holds (`survey`) and what
lines drew random numbers (`draws`). A line is written at once: what kills the process next can't take it back.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from spot_training.digests import digest
from spot_training.draws import Draws
from spot_training.loop import findings
from spot_training.survey import Survey
from spot_training.users import loop_frame, stored_at
from torch import Tensor, nn

VARIABLE = "SPOT_REHEARSAL"
Moment = Literal["forward", "backward", "update", "boundary", "behind", "evaluating"]

_OPEN: frozenset[str] = frozenset({"forward", "backward", "boundary"})
"""Where a snapshot can be taken while the loop stands still."""
_HOLD_S = 5.0
_NOTICE_S = 60.0
_LOOK_S = 0.01


class Probe:
    """One life of a trainer in a rehearsal."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._plan: dict[str, Any] = json.loads((folder / "plan.json").read_text())
        self.life, self._record = _new_record(folder)
        strikes = [strike for strike in self._plan["strikes"] if strike["life"] == self.life]
        self._strike: dict[str, Any] | None = strikes[0] if strikes else None
        self._tracked: dict[str, object] = {}
        self._draws = Draws()
        self._seen: set[tuple[str, int]] = set()
        self._step = 0
        self._boundaries = 0
        self._write("began", life=self.life, pid=os.getpid())

    @classmethod
    def from_environment(cls) -> Probe | None:
        """The rehearsal's probe, where this is one."""
        folder = os.environ.get(VARIABLE)
        return cls(Path(folder)) if folder else None

    def watch(self, tracked: Mapping[str, object]) -> None:
        """Everything that is tracked, by name, once it is: modules get a hook each for `forward` and `backward`."""
        self._tracked |= tracked
        for module in [thing for thing in tracked.values() if isinstance(thing, nn.Module)]:
            module.register_forward_hook(self._on_forward)

    def boundary(self, step: int, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """A boundary was noted: `tensors` and `values` are all that is tracked, random numbers included (`rng.*`)."""
        draws = self._draws.take()
        self._step = step
        with self._draws.apart():
            survey = Survey()
            frame = loop_frame()
            if frame is not None:
                survey.look_around(frame, self._tracked)
                if self._boundaries < 2:  # the first has no body behind it yet
                    findings = _findings(frame, self._tracked)
                    self._write("loop", **stored_at(frame), findings=findings)
                if self._boundaries == 0:
                    self._draws.follow(frame)
            self._boundaries += 1
            self._write(
                "boundary",
                step=step,
                tensors={name: digest(tensor) for name, tensor in tensors.items()},
                values=Survey().values(values),
                around=survey.found,
                draws=draws,
            )
        if step >= self._plan["end"]:
            self._write("ended", step=step)
            self._stand_still()

    def moment(self, name: Moment, step: int) -> None:
        """The loop is at `name` of step `step`. Does not return where the plan says so."""
        if (name, step) not in self._seen:
            self._seen.add((name, step))
            self._write("moment", moment=name, step=step)
        strike = self._strike
        if strike is None or step < strike["step"] or (name != strike["moment"] and step < strike["step"] + 3):
            return  # three steps later any moment will do: this one does not come again
        self._strike = None
        self._write("struck", moment=name, step=step, how=strike["how"])
        match strike["how"]:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "cut":
                self._stand_still()
            case "notice":
                self._await_notice()
                if name in _OPEN:
                    time.sleep(_HOLD_S)

    def _on_forward(self, module: nn.Module, inputs: object, output: object) -> None:
        if torch.compiler.is_compiling():
            return
        self.moment("forward", self._step)
        for tensor in _tensors(output):
            if tensor.requires_grad and not tensor.is_leaf:
                tensor.register_hook(self._on_backward)  # type: ignore[no-untyped-call]
                return

    def _on_backward(self, _: Tensor) -> None:
        self.moment("backward", self._step)

    def _await_notice(self) -> None:
        end = time.monotonic() + _NOTICE_S
        told = self._folder / f"noticed-{self.life}"
        while not told.exists() and time.monotonic() < end:
            time.sleep(_LOOK_S)

    def _stand_still(self) -> None:
        """Until whoever rehearses takes the machine away; where nobody does, it ends as a crash would."""
        time.sleep(_NOTICE_S)
        os._exit(70)

    def _write(self, what: str, **values: Any) -> None:
        os.write(self._record, (json.dumps({"what": what, **values}) + "\n").encode())


def _tensors(output: object) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        return [tensor for value in output.values() for tensor in _tensors(value)]
    if isinstance(output, list | tuple):
        return [tensor for value in output for tensor in _tensors(value)]
    return []


def _findings(frame: Any, tracked: Mapping[str, object]) -> list[dict[str, Any]]:
    """What can be read off the loop before it costs anything."""
    return [asdict(finding) for finding in findings(frame, tracked)]


def _new_record(folder: Path) -> tuple[int, int]:
    """The number of this life, and its file, open for writing."""
    for life in range(1, 10_000):
        with contextlib.suppress(FileExistsError):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            return life, os.open(folder / f"life-{life}.jsonl", flags, 0o644)
    raise OSError(f"{folder} holds the records of 10,000 lives: rehearse in an empty folder")
