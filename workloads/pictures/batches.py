"""Global batches without end, by a counter: planned from lengths, read and decoded by workers, resumed exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from workloads.pictures.batch import Batch, DataError, GlobalBatch, Shape, lay_out
from workloads.pictures.decode import decode, normalise
from workloads.pictures.order import Draw, Draws
from workloads.pictures.plan import Planner
from workloads.pictures.source import Source

Rows = tuple[tuple[Draw, ...], ...]


class Batches:
    """Batches of `sources`, mixed by `weights`. Its state is a counter of samples: the rest is computed from it.

    Raises:
        DataError: global_batch can't be shared out evenly.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        shape: Shape,
        *,
        seed: int,
        global_batch: int,
        micro_batch: int,
        weights: Sequence[float] | None = None,
        pack: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if global_batch % (micro_batch * world_size):
            raise DataError(
                f"training.global_batch {global_batch} is not a multiple of {micro_batch} (micro_batch) x "
                f"{world_size} (ranks): change it or micro_batch"
            )
        self.sources, self.shape, self.seed = tuple(sources), shape, seed
        self.micro_batch, self.rank, self.world_size = micro_batch, rank, world_size
        self.samples = 0
        draws = Draws([len(source) for source in sources], weights, seed=seed)
        self._planner = Planner(draws, self._length, rows=global_batch, room=shape.sequence_length, pack=pack)
        self.fingerprint = {
            "sources": {source.name: source.digest[:32] for source in sources},
            "shares": list(draws.shares),
            "sequence_length": shape.sequence_length,
            "tokens_per_image": shape.tokens_per_image,
            "pack": pack,
        }

    def __iter__(self) -> Iterator[GlobalBatch]:
        return self

    def __next__(self) -> GlobalBatch:
        plan = self._planner.at(self.samples)
        share = len(plan.rows) // self.world_size
        mine = plan.rows[self.rank * share : (self.rank + 1) * share]
        micro_batches = [
            make(mine[start : start + self.micro_batch], self.sources, self.shape)
            for start in range(0, share, self.micro_batch)
        ]
        self.samples = plan.stop
        targets = sum(self.sources[draw.source].targets(draw.row) for row in plan.rows for draw in row)
        return GlobalBatch(micro_batches, targets)

    def _length(self, draw: Draw) -> int:
        return self.sources[draw.source].length(draw.row)

    def state_dict(self) -> dict[str, Any]:
        """JSON-able: how many samples were handed out, and what they were drawn from."""
        return {"samples": self.samples, "seed": self.seed, "fingerprint": self.fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken.

        Raises:
            DataError: the samples would be others than those the run was started with.
        """
        was, now = state["fingerprint"] | {"seed": state["seed"]}, self.fingerprint | {"seed": self.seed}
        changes = [f"{key} was {was.get(key)} and is {now[key]}" for key in now if was.get(key) != now[key]]
        if changes:
            raise DataError(
                f"the checkpoint was made with other data: {'; '.join(changes)}. Put back what the run was started "
                f"with, or start a new run under another run_id"
            )
        self.samples = int(state["samples"])


def make(rows: Rows, sources: Sequence[Source], shape: Shape) -> Batch:
    """One micro-batch: read, decoded and laid out. Raises DataError."""
    samples = tuple(tuple(sources[draw.source].sample(draw.row) for draw in row) for row in rows)
    texts = [[sources[draw.source].text(draw.row) for draw in row] for row in rows]
    pixels = [
        decode(f"{image.name} ({sample.key})", image.read(), shape.image_size)
        for row in samples
        for sample in row
        for image in sample.images
    ]
    return Batch(normalise(pixels, shape.image_size), *lay_out(texts, shape), samples)


def eval_batches(source: Source, shape: Shape, *, micro_batch: int, count: int | None = None) -> Iterator[Batch]:
    """Up to `count` batches, one sample a row, in the records' order: the same ones every time."""
    rows = len(source) if count is None else min(len(source), count * micro_batch)
    for start in range(0, rows, micro_batch):
        stop = min(start + micro_batch, rows)
        yield make(tuple((Draw(0, 0, row),) for row in range(start, stop)), [source], shape)
