"""Streams: an `IterableDataset` goes on by being read again, up to where the loop was, within its epoch.

Its rows can't be asked for by number, so what was seen is passed over, by the same workers in the same turns with the
same random numbers. That costs the time of reading it, and is exact whatever buffers it shuffles in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Any

from spot_training.data.digest import Digest, digest
from spot_training.data.errors import DataError
from spot_training.data.randomness import Handle, generators_in, global_generators, seeded
from spot_training.data.source import Wanted
from torch.utils.data import Dataset, get_worker_info


class Stream:
    """The plan of a stream: as many batches as come."""

    def __init__(
        self, dataset: Any, *, batch_size: int | None, drop_last: bool, workers: int, world_size: int, seed: int
    ) -> None:
        self._dataset, self._batch_size = dataset, batch_size
        self._facts = {
            "stream": type(dataset).__name__,
            "seed": seed,
            "batch_size": batch_size,
            "drop_last": drop_last,
            "num_workers": max(1, workers),
            "world_size": world_size,
        }

    def batches(self, epoch: int, start: int) -> Iterator[list[Any]]:
        return repeat([])

    def length(self, epoch: int) -> int:
        if not isinstance(self._dataset, Sized):
            raise TypeError(f"{type(self._dataset).__name__} has no __len__")
        return -(-len(self._dataset) // (self._batch_size or 1))

    def facts(self) -> dict[str, Any]:
        return dict(self._facts)


@dataclass(frozen=True)
class Nothing:
    """What comes instead of a batch: it was passed over, or this worker's part of the stream has ended."""

    worker: int
    ended: bool


class StreamSource(Dataset[Any]):
    """What makes the next batch of a stream, in a worker or in the loop's own process."""

    def __init__(self, dataset: Any, collate: Callable[[Any], Any], *, batch_size: int | None, drop_last: bool) -> None:
        self.dataset = dataset
        self._collate, self._batch_size, self._drop_last = collate, batch_size, drop_last
        self._lap: int | None = None
        self._rows: Iterator[Any] = iter(())
        self._found: list[Handle] = []

    def __getitems__(self, wanted: Wanted) -> tuple[int, Digest, Any]:
        """The next batch, with its number and digest, or `Nothing`."""
        if wanted.lap == self._lap:
            batch = self._next(wanted)
        else:
            self._lap = wanted.lap
            if callable(set_epoch := getattr(self.dataset, "set_epoch", None)):
                set_epoch(wanted.epoch)
            batch = self._first(wanted)
            if wanted.verify and digest(batch, whole=True) != digest(batch := self._first(wanted), whole=True):
                raise DataError(
                    f"{type(self.dataset).__name__} began otherwise when it was read twice with the same random "
                    f"numbers, so a resumed run could not find its place. Its __iter__ must begin anew each time and "
                    f"give the same rows (sort what is listed; draw from random, numpy.random or torch, or from a "
                    f"generator with a seed); or say verify=False, and train on without the promise"
                )
        return wanted.number, digest(batch), batch

    def _first(self, wanted: Wanted) -> Any:
        self._found = generators_in(self.dataset, self._collate)
        with seeded([*global_generators(), *self._found], wanted.seed):
            self._rows = iter(self.dataset)
        return self._next(wanted)

    def _next(self, wanted: Wanted) -> Any:
        info = get_worker_info()
        worker = info.id if info else 0
        size = self._batch_size or 1
        with seeded([*global_generators(), *self._found], wanted.seed):
            rows = list(islice(self._rows, size))
            if len(rows) < (size if self._drop_last else 1):
                return Nothing(worker, ended=True)
            if wanted.skip:
                return Nothing(worker, ended=False)
            return self._collate(rows if self._batch_size else rows[0])


def until_ended(made: Iterator[Any], workers: int) -> Iterator[Any]:
    """The batches that are wanted, until every worker's part of the stream has ended."""
    ended: set[int] = set()
    for number, found, batch in made:
        if not isinstance(batch, Nothing):
            yield number, found, batch
        elif batch.ended:
            ended.add(batch.worker)
            if len(ended) == max(1, workers):
                return
