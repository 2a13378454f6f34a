"""What makes one batch, in a worker or in the loop's own process: rows, random numbers, collation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spot_training.data.digest import Digest, digest
from spot_training.data.errors import DataError
from spot_training.data.randomness import Handle, generators_in, global_generators, seeded
from torch.utils.data import Dataset, get_worker_info


@dataclass(frozen=True)
class Wanted:
    """One batch's rows, and all else that it is a function of."""

    epoch: int
    number: int
    seed: int
    rows: list[Any]
    verify: bool = False
    """Make it twice, and see that it is the same: that nothing was drawn which a seed does not reach."""
    lap: int = 0
    """A stream is read from its start in each."""
    skip: bool = False
    """It is passed over: a resumed loop had it already."""


class Source(Dataset[Any]):
    """A map-style data set with its `collate_fn`, as torch's `DataLoader` takes it. `single`: a row is a batch."""

    def __init__(self, dataset: Any, collate: Callable[[Any], Any], *, single: bool) -> None:
        self.dataset = dataset
        self._collate = collate
        self._single = single
        self._epoch: int | None = None
        self._found: list[Handle] | None = None

    def __getitems__(self, wanted: Wanted) -> tuple[int, Digest, Any]:
        """The batch, with its number and digest: a tuple, which torch's pinning of memory walks through."""
        if wanted.epoch != self._epoch and callable(set_epoch := getattr(self.dataset, "set_epoch", None)):
            set_epoch(wanted.epoch)
        self._epoch = wanted.epoch
        batch = self._make(wanted)
        if wanted.verify and digest(batch, whole=True) != digest(self._make(wanted), whole=True):
            raise DataError(
                f"{type(self.dataset).__name__} made another batch when it was asked twice for the same rows with the "
                f"same random numbers, so a resumed run would train on other data. It draws from a generator that is "
                f"not found in its attributes (hold it as one: self.rng = ...), counts what it was asked for, or "
                f"looks at the clock. Make a row a function of its index and of random numbers; or say verify=False, "
                f"and train on without the promise"
            )
        return wanted.number, digest(batch), batch

    def _make(self, wanted: Wanted) -> Any:
        if self._found is None:
            self._found = generators_in(self.dataset, self._collate)
            before = self._draw(wanted, self._found)
            found = generators_in(self.dataset, self._collate)
            if len(found) == len(self._found):
                return before
            self._found = found  # some hold a generator from their first row on only
        return self._draw(wanted, self._found)

    def _draw(self, wanted: Wanted, found: list[Handle]) -> Any:
        with seeded([*global_generators(), *found], wanted.seed):
            if self._single:
                return self._collate(self.dataset[wanted.rows[0]])
            if getattr(self.dataset, "__getitems__", None):
                return self._collate(self.dataset.__getitems__(wanted.rows))
            return self._collate([self.dataset[row] for row in wanted.rows])


class WorkerInit:
    """A worker's start: `get_worker_info().dataset` is the data set that was given, as in torch's own recipes."""

    def __init__(self, init: Callable[[int], object] | None) -> None:
        self._init = init

    def __call__(self, worker: int) -> None:
        info = get_worker_info()
        object.__setattr__(info, "dataset", info.dataset.dataset)  # type: ignore[union-attr]
        if self._init:
            self._init(worker)


def as_made(made: Any) -> Any:
    """torch collates nothing: it was made whole."""
    return made
