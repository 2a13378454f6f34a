"""ResumableLoader: torch's own `DataLoader` over a map-style data set, resumed at any batch."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from spot_training.data.digest import Digest, refuse_other
from spot_training.data.errors import DataError
from spot_training.data.given import check, place
from spot_training.data.order import derive
from spot_training.data.plan import Plan, Rows, Sampled, Share, refuse_changes
from spot_training.data.source import Source, Wanted, WorkerInit, as_made
from spot_training.data.stream import Stream, StreamSource, until_ended
from torch.utils.data import DataLoader, IterableDataset, Sampler, default_collate, default_convert

_MOST_AHEAD = 64

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Position:
    """`batch` batches of `epoch` were received; `digest` is the last one's, as this rank had it."""

    epoch: int = 0
    batch: int = 0
    digest: Digest | None = None


class ResumableLoader(Generic[Batch]):
    """Batches of `dataset` (with `__len__` and `__getitem__`) in an order that depends on `seed` and epoch alone.

        loader = ResumableLoader(dataset, batch_size=32, shuffle=True, seed=0, num_workers=4)
        session.track(model=model, optimizer=optimizer, loader=loader)
        for step, batch in zip(session.steps(max_steps), loader.forever()):
            ...

    or, with epochs:

        steps = session.steps(max_steps)
        for epoch in loader.epochs(10):
            for batch, step in zip(loader, steps):
                ...

    What counts is what the loop has received: not what workers have made ahead. `batch_size` is one rank's. All other
    options of `DataLoader` may be given, but for `generator` and `in_order`, which `seed` stands for. `sampler` and
    `batch_sampler` are asked anew in each epoch, with their random numbers seeded. `num_workers` may change at any
    restart, and so may the world size if `batch_size` times it stays the same. Random transforms are seeded by batch.

    An `IterableDataset` is a stream: it is read again at a resume, up to where the loop was in its epoch, by the same
    `num_workers`. It shuffles by itself, and a rank's part of it is its own choice.

    Raises:
        DataError: this data can't be resumed exactly; the message says what to change.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool = False,
        *,
        seed: int = 0,
        sampler: Iterable[int] | None = None,
        batch_sampler: Iterable[list[int]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Batch] | None = None,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        verify: bool = True,
        **options: Any,
    ) -> None:
        if rank is None or world_size is None:
            rank, world_size = place()
        check(dataset, options)
        self.dataset, self.batch_size, self.num_workers = dataset, batch_size, num_workers
        self.rank, self.world_size = rank, world_size
        self._verify, self._seed = verify, seed
        self._position = Position()
        share = Share(batch_size=batch_size or 1, drop_last=drop_last, rank=rank, world_size=world_size)
        stream = isinstance(dataset, IterableDataset)
        if stream:
            if sampler is not None or batch_sampler is not None or shuffle:
                raise DataError("a stream has its own order: leave out shuffle and samplers, and shuffle inside of it")
            self._plan: Plan = Stream(
                dataset,
                batch_size=batch_size,
                drop_last=drop_last,
                workers=num_workers,
                world_size=world_size,
                seed=seed,
            )
        elif batch_sampler is not None:
            if sampler is not None or shuffle or drop_last or batch_size not in (1, None):
                raise DataError("batch_sampler says it all: leave out batch_size, shuffle, sampler and drop_last")
            self._plan = Sampled(batch_sampler, len(dataset), None, seed=seed)
        elif sampler is not None:
            if shuffle:
                raise DataError("sampler says the order: leave out shuffle")
            self._plan = Sampled(sampler, len(dataset), share, seed=seed)
        else:
            self._plan = Rows(len(dataset), share, shuffle=shuffle, seed=seed)
        if not stream and not len(self):
            raise DataError(f"{len(dataset)} rows are not one batch of {share.whole}: more data, or smaller batches")
        single = batch_size is None and batch_sampler is None
        self._base_seed = torch.Generator()
        self._wanted: Iterator[Wanted] = iter(())
        collate = collate_fn or (default_convert if single else default_collate)
        self._torch: DataLoader[Any] = DataLoader(
            StreamSource(dataset, collate, batch_size=batch_size, drop_last=drop_last)
            if stream
            else Source(dataset, collate, single=single),
            batch_sampler=_Feed(self),
            collate_fn=as_made,
            num_workers=num_workers,
            generator=self._base_seed,
            worker_init_fn=WorkerInit(options.pop("worker_init_fn", None)),
            **options,
        )
        self._expected: Digest | None = None  # of the batch before the one at which a restored run goes on
        self._passed: list[tuple[tuple[int, int], tuple[int, int]]] = []
        self._restored = self._laps = 0
        self._current: weakref.ref[Batches[Batch]] | None = None
        self._trail: deque[Position] = deque(maxlen=_MOST_AHEAD + 1)  # where the last batches were received
        self._ahead: int | None = None  # how many batches the loop fetches before the step that they are for
        self._thread: int | None = None

    def __len__(self) -> int:
        """Batches of one epoch, wherever in it a run goes on."""
        return self._plan.length(self._position.epoch)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of this epoch that are left. A loop that breaks off ends the epoch, as with a `DataLoader`."""
        return self._claim(forever=False)

    def forever(self) -> Iterator[Batch]:
        """Batches without end, epoch after epoch."""
        return self._claim(forever=True)

    def epochs(self, count: int) -> Iterator[int]:
        """The epochs that are left of `count`, the one in which a run goes on included: iterate the loader in each."""
        while (epoch := self.epoch) < count:
            yield epoch
            if self.epoch == epoch:
                raise DataError(f"epoch {epoch} was not read to its end: iterate the loader inside of epochs()")

    @property
    def epoch(self) -> int:
        """The epoch of the last batch received; the next one, once a loop has seen its end."""
        return self._position.epoch

    @property
    def batch(self) -> int:
        """How many batches of this epoch were received."""
        return self._position.batch

    def end_epoch(self) -> None:
        """What is left of this epoch, if some of it was received, is passed over."""
        if self._position.batch:
            self._position, self._expected = Position(self._position.epoch + 1), None

    # --- what the session asks for ---

    def place(self) -> list[int]:
        """Where the loop is: so many batches of this epoch were received, [epoch, batch]."""
        at = self._trail[0] if self._ahead else self._position
        return [at.epoch, at.batch]

    def pass_over(self, spans: Sequence[Sequence[Sequence[int]]]) -> None:
        """Leave out the batches from one place to another, each a pair of `place()`. The others stay as they are."""
        self._passed = [((start[0], start[1]), (end[0], end[1])) for start, end in spans]

    def limits(self) -> list[str]:
        """What is worth knowing before a long run: sentences. What is resumed is exact all the same."""
        if isinstance(self._plan, Stream):
            return ["the stream is read again at a resume, from the start of its epoch to where the loop was"]
        return []

    def state_dict(self) -> dict[str, Any]:
        """Where the loop is. A few microseconds."""
        at = self._trail[0] if self._ahead else self._position
        last = {"digest": list(at.digest), "rank": self.rank, "world_size": self.world_size} if at.digest else None
        return {"epoch": at.epoch, "batch": at.batch, "facts": self._plan.facts(), "last": last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            DataError: the batches would be others than those the run was started with.
        """
        state = state_dict
        refuse_changes(state["facts"], self._plan.facts(), ranks=self.world_size)
        last = state["last"]
        if not last or (last["rank"], last["world_size"]) != (self.rank, self.world_size) or not self._verify:
            last = None
        exact, rounded, magnitude = last["digest"] if last else (0, 0, 0.0)
        known = (exact, rounded, magnitude) if last else None
        self._expected = known if state["batch"] else None
        self._position = Position(state["epoch"], state["batch"], known)
        self._restored += 1
        self._trail.clear()
        self._ahead = self._thread = None

    def on_first_boundary(self) -> None:
        """Called by the session when the loop asks for its first step. What was received by then was fetched ahead.

        A resumed run will fetch as many ahead, so that many are given again: from now on the state is where the loop
        was so many batches before.

        Raises:
            DataError: something else than the training loop read them.
        """
        self._ahead, self._thread = len(self._trail), threading.get_ident()
        if self._ahead and (self._ahead > _MOST_AHEAD or self._current is None or self._current() is None):
            raise DataError(
                "batches were read before the first step that are not for the first steps: a resumed run would read "
                "others there, and miss these in training. Take what is looked at before from the data set, or from a "
                "loader of its own that is not tracked"
            )

    # --- the iterators' side ---

    def _claim(self, *, forever: bool) -> Batches[Batch]:
        if self._current and self._current():
            raise DataError(
                "this loader is being iterated already, and a resumed run could not know by which of two loops. Make "
                "one iterator, `batches = loader.forever()`, and take `next(batches)` in each step"
            )
        batches = Batches(self, forever=forever)
        self._current = weakref.ref(batches, None if forever else self._given_up)
        return batches

    def _given_up(self, gone: object) -> None:
        """An iterator was dropped. In the middle of an epoch that ends it."""
        if self._current is gone:
            self._current = None
            self.end_epoch()

    def _ended(self, batches: Batches[Batch]) -> None:
        self._position = Position(self._position.epoch + 1, 0)
        if not batches.forever:
            self._current = None

    def _received(self, number: int, digest: Digest) -> None:
        if self._thread is not None and self._thread != threading.get_ident():
            raise DataError(
                "batches are taken by another thread than the one that trains: how many it has taken at a step is "
                "chance. Take them in the loop, and say num_workers and prefetch_factor to have them made ahead"
            )
        self._trail.append(self._position)
        if self._ahead is not None and len(self._trail) > self._ahead:
            self._trail.popleft()
        self._position = Position(self._position.epoch, number + 1, digest)

    def _start(self) -> Iterator[Any]:
        """torch's iterator over what is left of this epoch, behind the batch that is compared."""
        rows = self._plan.facts().get("rows")
        if rows is not None and rows != len(self.dataset):
            raise DataError(f"the data set has {len(self.dataset)} rows, and had {rows} when the loader was made")
        epoch, start = self._position.epoch, self._position.batch
        expected, self._expected = self._expected, None
        self._base_seed.manual_seed(derive("workers", self._seed, epoch))
        self._laps += 1
        first = start - 1 if expected else start
        self._wanted = self._wants(epoch, first, verify=self._verify)
        made: Iterator[Any] = iter(self._torch)
        if isinstance(self._plan, Stream):
            made = until_ended(made, self.num_workers)
        self._verify = False
        if expected:
            _, found, _ = next(made, (None, (-1, -1, 0.0), None))
            refuse_other(expected, found, f"batch {start - 1} of epoch {epoch}")
        return made

    def _wants(self, epoch: int, start: int, *, verify: bool) -> Iterator[Wanted]:
        skipped = start if isinstance(self._plan, Stream) else 0
        lap, going_on = self._laps, self._position.batch
        for number, rows in enumerate(self._plan.batches(epoch, start), start - skipped):
            passed = number >= going_on and any(begin <= (epoch, number) < end for begin, end in self._passed)
            if passed and not isinstance(self._plan, Stream):  # which is read in its order
                continue
            seed = derive("batch", self._seed, epoch, number, self.rank)
            yield Wanted(epoch, number, seed, rows, verify, lap, passed or number < start)
            verify = False


class Batches(Iterator[Batch]):
    """One loop over a loader. Its making ahead starts with the first batch that is asked for."""

    def __init__(self, loader: ResumableLoader[Batch], *, forever: bool) -> None:
        self._loader = loader
        self.forever = forever
        self._made: Iterator[Any] | None = None
        self._restored = loader._restored
        self._over = False

    def __next__(self) -> Batch:
        loader = self._loader
        if self._over:
            raise StopIteration
        if self._restored != loader._restored:
            self._made, self._restored = None, loader._restored
        while True:
            if self._made is None:
                self._made = loader._start()
            try:
                number, digest, batch = next(self._made)
            except StopIteration:
                self._made = None
                if not loader.batch and not any(begin[0] <= loader.epoch <= end[0] for begin, end in loader._passed):
                    raise DataError(f"epoch {loader.epoch} gave no batch: the data is empty") from None
                loader._ended(self)
                if not self.forever:
                    self._over = True
                    raise
                continue
            loader._received(number, digest)
            made: Batch = batch
            return made


class _Feed(Sampler[Any]):
    """What torch's loader takes its batches' rows from."""

    def __init__(self, loader: ResumableLoader[Any]) -> None:
        self._loader = weakref.proxy(loader)

    def __iter__(self) -> Iterator[Any]:
        wanted: Iterator[Wanted] = self._loader._wanted
        return wanted
