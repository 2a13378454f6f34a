"""Passing over: data that the run does without, since a metric went wild with it.

A place is where a tracked thing is in its data, as JSON: the same wherever the run was interrupted. What lies between
two places is never handed out again, so that the run is the one that would have been without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from spot_training.values import StateError

Span = Sequence[Any]
"""Two places, from and to: what was handed out between them."""


@runtime_checkable
class Passes(Protocol):
    """A loader, an iterator, whatever hands out data: it knows where the loop is, and can leave spans out."""

    def place(self) -> Any: ...
    def pass_over(self, spans: Sequence[Span]) -> None: ...


class Passing:
    """What of `tracked` hands out data, once it is where the run goes on. `wanted`: spans by name.

    Raises:
        StateError: nothing there could pass over any.
    """

    def __init__(self, tracked: Mapping[str, Any], wanted: Mapping[str, Sequence[Span]]) -> None:
        self._things = {name: thing for name, thing in tracked.items() if isinstance(thing, Passes)}
        if not self._things or wanted.keys() - self._things.keys():
            lacks = ", ".join(sorted(wanted.keys() - self._things.keys())) or "of what is tracked nothing"
            raise StateError(
                f"supervision.spike.skip: {lacks} can pass over data. Track what hands it out: a "
                "spot_training.ResumableLoader, or an iterator of your own with place() and pass_over(spans) "
                "(docs/rollback.md); or leave skip out"
            )
        for name, spans in wanted.items():
            self._things[name].pass_over(spans)
        self._from = self._places()

    def since(self) -> dict[str, Span]:
        """What was handed out since it was last asked, or since the start."""
        before, self._from = self._from, self._places()
        return {name: [before[name], place] for name, place in self._from.items() if place != before[name]}

    def _places(self) -> dict[str, Any]:
        return {name: thing.place() for name, thing in self._things.items()}
