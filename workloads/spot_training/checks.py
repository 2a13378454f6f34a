"""Checks: what a loop does that a resume could not repeat is found in its first steps, and named.

Cheap ones at each step (versions of some tensors, whether a gradient was carried over), thorough ones (by content) in
the first steps and then ever more rarely.
"""

from __future__ import annotations

import weakref
from itertools import chain, islice
from typing import Any

import torch
from spot_training.copies import fingerprint
from spot_training.rng import RngState, note_rng
from spot_training.state import Boundary, StateError, TrainState
from torch import Tensor

_A_STEP = 1000  # versions looked at between one boundary and its update: 0.2 ms
_LARGEST_BYTES = 8 << 30  # more than this is not summed up


class Checks:
    """Of one session's loop. `where`: the loop's place, for the sentences."""

    def __init__(self, state: TrainState) -> None:
        self._state = state
        self.where = "the loop"
        self._versions: list[tuple[str, Tensor, int]] = []
        self._contents: dict[str, tuple[Tensor, int]] = {}
        self._first = 0
        self._carried = ""
        self._hook: Any = None
        self._drawn_from: dict[str, Any] = {}

    def after_track(self) -> None:
        """From here to the first step no random numbers may be drawn."""
        self._drawn_from = _marks(note_rng())

    def before_first_step(self) -> None:
        """
        Raises:
            StateError: random numbers were drawn.
        """
        drawn = [name for name, mark in _marks(note_rng()).items() if self._drawn_from.get(name, mark) != mark]
        if drawn:
            raise StateError(
                f"random numbers ({', '.join(drawn)}) were drawn between session.track() and the first step of "
                f"{self.where}: a resumed run would draw others there. Do it before session.track(), or inside the "
                "loop (if step == 0: ...)"
            )

    def at_top(self, boundary: Boundary, *, thorough: bool) -> None:
        """The boundary was noted: what must stand still from here?

        Raises:
            StateError: gradients were carried over the boundary before this one.
        """
        self._raise_carried()
        parameters, first = self._state.names.tensors, 0
        if len(parameters) > _A_STEP:  # a part of them after the other; no list of all
            first = self._first = (self._first + _A_STEP) % len(parameters)
        part = islice(chain(parameters.items(), parameters.items()), first, first + min(_A_STEP, len(parameters)))
        self._versions = [(name, tensor, tensor._version) for name, tensor in part]
        self._contents = {}
        if thorough and sum(tensor.nbytes for tensor in self._state.names.tensors.values()) <= _LARGEST_BYTES:
            self._contents = {name: (tensor, fingerprint(tensor)) for name, tensor in self._state.names.tensors.items()}
        if thorough:
            self._watch_gradients(boundary.step)

    def at_close(self, boundary: Boundary, *, thorough: bool) -> None:
        """An update begins.

        Raises:
            StateError: something that only an update may change has changed already.
        """
        self._raise_carried()
        changed = [name for name, tensor, version in self._versions if tensor._version != version]
        changed += [name for name, (tensor, was) in self._contents.items() if fingerprint(tensor) != was]
        self._contents = {}
        if changed:
            count = len(set(changed))
            raise StateError(
                f"{changed[0]} was changed in step {boundary.step} of {self.where} before the optimizer's step"
                f"{f' ({count} tensors in all)' if count > 1 else ''}: a snapshot taken meanwhile "
                "would hold half of it. Put the line that changes it into `with session.update():`"
            )
        self._state.changed(boundary, by_content=thorough)

    def _watch_gradients(self, step: int) -> None:
        """A gradient that is there at the boundary, and is added to before it is dropped or zeroed, is carried over."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        for name, parameter in self._state.names.tensors.items():
            gradient = parameter.grad
            if gradient is None or not parameter.requires_grad or gradient.layout is not torch.strided:
                continue
            if not gradient.count_nonzero():
                continue
            look = self._looker(name, step, parameter, gradient)
            self._hook = parameter.register_hook(look)  # type: ignore[no-untyped-call]
            return

    def _looker(self, name: str, step: int, parameter: Tensor, gradient: Tensor) -> Any:
        kept, version = weakref.ref(gradient), gradient._version
        trained = weakref.ref(parameter)

        def look(_: Tensor) -> None:
            hook, self._hook = self._hook, None
            if hook is None:
                return
            hook.remove()
            now = trained()
            found = None if now is None else now.grad
            if found is not None and found is kept() and found._version == version and found.count_nonzero():
                self._carried = (
                    f"the gradient of {name} was carried from step {step - 1} into step {step} of {self.where}: "
                    "gradients are no part of a checkpoint. Let one step of session.steps() be one whole update "
                    "(accumulate inside its body), or call optimizer.zero_grad() before the first backward()"
                )

        return look

    def _raise_carried(self) -> None:
        if self._carried:
            carried, self._carried = self._carried, ""
            raise StateError(carried)


def _marks(rng: RngState) -> dict[str, Any]:
    """What tells whether a generator has moved."""
    marks: dict[str, Any] = {name: fingerprint(tensor) for name, tensor in rng.tensors.items()}
    marks["random"] = hash(rng.python)
    if rng.numpy is not None:
        marks["numpy"] = (rng.numpy[2], rng.numpy[1].tobytes())
    return {name.removeprefix("rng."): mark for name, mark in marks.items()}
