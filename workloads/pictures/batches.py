"""Global batches without end, by a counter: planned from lengths, read and decoded by workers, resumed exactly."""

from __future__ import annotations

import hashlib
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from agent.config.pictures import Pictures
from workloads.pictures.batch import Batch, DataError, GlobalBatch, Shape
from workloads.pictures.make import Made, Maker, Rows
from workloads.pictures.order import Draw, Draws
from workloads.pictures.plan import Plan, Planner
from workloads.pictures.source import Source

_BROKEN_LIMIT = 100


class Batches:
    """Batches of `sources`, mixed by their weights; `pictures` says how. Its state is a counter of samples: the rest is
    computed from it. So `workers`, the ranks and `global_batch` may change at any start: no sample is lost or repeated.

    Raises:
        DataError: global_batch can't be shared out evenly.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        shape: Shape,
        pictures: Pictures | None = None,
        *,
        seed: int,
        global_batch: int,
        micro_batch: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if global_batch % (micro_batch * world_size):
            raise DataError(
                f"training.global_batch {global_batch} is not a multiple of {micro_batch} (micro_batch) x "
                f"{world_size} (ranks): change it or micro_batch"
            )
        self.pictures = pictures = pictures or Pictures()
        self.sources, self.shape, self.seed = tuple(sources), shape, seed
        self.micro_batch, self.rank, self.world_size = micro_batch, rank, world_size
        self.samples = self.broken = 0
        draws = Draws([len(source) for source in sources], [source.weight for source in sources], seed=seed)
        length = partial(_length, self.sources, shape.tokens_per_image)
        self._planner = Planner(draws, length, rows=global_batch, room=shape.sequence_length, pack=pictures.pack)
        self._micro_batches = global_batch // (micro_batch * world_size)
        self._maker = Maker(
            sources,
            shape,
            seed=seed,
            augment=pictures.augment,
            on_broken=pictures.on_broken,
            reads_at_once=pictures.reads_at_once,
        )
        self._made: Iterator[Made] | None = None
        self._plans: deque[Plan] = deque()
        self.fingerprint = {
            "samples": sum(map(len, sources)),
            "sources": _digest(*(source.digest for source in sources)),
            "shares": _digest(*draws.shares),
            "seed": seed,
            "sequence_length": shape.sequence_length,
            "tokens_per_image": shape.tokens_per_image,
            "image_size": shape.image_size,
            "pack": pictures.pack,
            "augment": pictures.augment,
        }

    def __iter__(self) -> Iterator[GlobalBatch]:
        return self

    def __next__(self) -> GlobalBatch:
        if self._made is None:
            self._made = self._loader()
        batches: list[Batch] = []
        broken: list[str] = []
        for _ in range(self._micro_batches):
            made = next(self._made)
            if made.batch is None:
                self._made = None
                raise DataError(made.error)
            batches.append(made.batch)
            broken += made.broken
        self._count(broken)
        plan = self._plans.popleft()
        self.samples = plan.stop
        targets = sum(self.sources[draw.source].targets(draw.row) for row in plan.rows for draw in row)
        return GlobalBatch(batches, targets, tuple(broken))

    def place(self) -> int:
        """Where the loop is: samples that were handed out or passed over."""
        return self.samples

    def pass_over(self, spans: Sequence[Sequence[int]]) -> None:
        """Leave out the samples from one place to another: a run that never had them."""
        self._planner.passed = [(start, end) for start, end in spans]
        self._made = None

    def state_dict(self) -> dict[str, Any]:
        """JSON-able: how many samples were handed out and left out, and what they were drawn from."""
        return {"samples": self.samples, "broken": self.broken, "fingerprint": self.fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken.

        Raises:
            DataError: the samples would be others than those the run was started with.
        """
        was, now = state["fingerprint"], self.fingerprint
        changes = [_change(key, was.get(key), now[key]) for key in now if was.get(key) != now[key]]
        if changes:
            raise DataError(
                f"the checkpoint was made with other data: {'; '.join(changes)}. Put back what the run was started "
                f"with, or start a new run under another run_id"
            )
        self.samples, self.broken = int(state["samples"]), int(state["broken"])
        self._made = None

    def _loader(self) -> Iterator[Made]:
        self._plans = deque()
        jobs = _Jobs(
            self._planner,
            self.samples,
            self._plans,
            rank=self.rank,
            ranks=self.world_size,
            size=self.micro_batch,
        )
        loader: DataLoader[Made] = DataLoader(
            self._maker,
            batch_size=None,
            sampler=jobs,
            num_workers=self.pictures.workers,
            collate_fn=_as_made,
            generator=torch.Generator(),  # else the workers' seed is drawn from the model's, once more at each resume
        )
        return iter(loader)

    def _count(self, broken: list[str]) -> None:
        for name in broken:
            print(f"left out: {name}", file=sys.stderr, flush=True)
        limit = self.pictures.broken_limit or _BROKEN_LIMIT
        if self.broken + len(broken) > limit:
            self._made = None
            raise DataError(
                f"{self.broken + len(broken)} samples were left out for pictures that can't be read, more than "
                f"data.pictures.broken_limit, {limit}; the last: {broken[-1]}. Mend them, or write a higher limit"
            )
        self.broken += len(broken)


class _Jobs(Sampler[Rows]):
    """A rank's micro-batches from the global batch on that begins with sample `start`; `plans` gets those begun.

    It knows nothing of `Batches`, so that workers end when that is dropped, and not when garbage is collected."""

    def __init__(self, planner: Planner, start: int, plans: deque[Plan], *, rank: int, ranks: int, size: int) -> None:
        self._planner, self._start, self._plans = planner, start, plans
        self._rank, self._ranks, self._size = rank, ranks, size

    def __iter__(self) -> Iterator[Rows]:
        start = self._start
        while True:
            plan = self._planner.at(start)
            self._plans.append(plan)
            share = len(plan.rows) // self._ranks
            mine = plan.rows[self._rank * share : (self._rank + 1) * share]
            for first in range(0, share, self._size):
                yield mine[first : first + self._size]
            start = plan.stop


def _length(sources: Sequence[Source], tokens_per_image: int, draw: Draw) -> int:
    return sources[draw.source].length(draw.row, tokens_per_image)


def _as_made(made: Any) -> Any:
    """torch collates nothing: it was made whole."""
    return made


def _digest(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:32]


def _change(key: str, was: object, now: object) -> str:
    names = {
        "samples": "samples", "sources": "the records or pictures", "shares": "the weights in data.pictures.mixture",
        "seed": "training.seed", "sequence_length": "data.sequence_length",
        "pack": "data.pictures.pack", "augment": "data.pictures.augment",
    }  # fmt: skip
    if key in ("sources", "shares"):
        return f"{names[key]} are others"
    return f"{names.get(key, key)} was {was} and is {now}"


def eval_batches(
    source: Source, shape: Shape, pictures: Pictures | None = None, *, micro_batch: int, count: int | None = None
) -> Iterator[Batch]:
    """Up to `count` batches, one sample a row, in the records' order: the same ones every time. Raises DataError."""
    maker = Maker([source], shape, seed=0, on_broken=(pictures or Pictures()).on_broken)
    rows = len(source) if count is None else min(len(source), count * micro_batch)
    for start in range(0, rows, micro_batch):
        stop = min(start + micro_batch, rows)
        made = maker.make(tuple((Draw(0, 0, row),) for row in range(start, stop)))
        assert made.batch is not None
        yield made.batch
