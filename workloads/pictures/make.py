"""One micro-batch made of its plan: in a worker, or in the trainer's own process. All that it depends on is in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from torch.utils.data import Dataset

from workloads.pictures.batch import IGNORED, Batch, DataError, Image, Sample, Shape, lay_out
from workloads.pictures.decode import Broken, Change, Pixels, decode, normalise
from workloads.pictures.order import Draw
from workloads.pictures.source import Source

Rows = tuple[tuple[Draw, ...], ...]
OnBroken = Literal["fail", "skip"]


@dataclass(frozen=True)
class Made:
    """A micro-batch, or why there is none. An error is a text here: torch would wrap it in its own."""

    batch: Batch | None
    broken: tuple[str, ...] = ()
    """Samples that were left out, with the reason."""
    error: str = ""


@dataclass(frozen=True)
class _Read:
    sample: Sample
    change: Change
    contents: list[Callable[[], bytes]]


class Maker(Dataset[Made]):
    """Micro-batches by their plans, as torch's `DataLoader` asks a data set for them."""

    def __init__(
        self,
        sources: Sequence[Source],
        shape: Shape,
        *,
        seed: int,
        augment: str = "none",
        on_broken: OnBroken = "fail",
        reads_at_once: int = 16,
    ) -> None:
        self.sources, self.shape, self.seed = tuple(sources), shape, seed
        self.augment, self.on_broken, self.reads_at_once = augment, on_broken, reads_at_once
        self._opened: tuple[int, ThreadPoolExecutor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_opened": None}

    def __getitem__(self, rows: Rows) -> Made:
        try:
            return self.make(rows)
        except DataError as error:
            return Made(None, error=str(error))

    def make(self, rows: Rows) -> Made:
        """Read, decoded and laid out. Raises DataError."""
        read = [[self._read(draw) for draw in row] for row in rows]
        texts = [[self.sources[draw.source].text(draw.row) for draw in row] for row in rows]
        ids, labels, positions, segments = lay_out(texts, self.shape)
        pixels: list[Pixels] = []
        broken = []
        for place, row in enumerate(read):
            for number, each in enumerate(row, 1):
                try:
                    pixels += list(self._decoded(each))
                except Broken as error:
                    reason = f"{each.sample.key}: {error}"
                    if self.on_broken == "fail":
                        raise Broken(reason) from error
                    broken.append(reason)
                    pixels += [_grey(self.shape.image_size)] * len(each.sample.images)
                    labels[place][segments[place] == number] = IGNORED
        samples = tuple(
            tuple(replace(each.sample, facts=each.change.facts(each.sample.facts)) for each in row) for row in read
        )
        batch = Batch(normalise(pixels, self.shape.image_size), ids, labels, positions, segments, samples)
        return Made(batch, tuple(broken))

    def _read(self, draw: Draw) -> _Read:
        """Its pictures are on their way."""
        source = self.sources[draw.source]
        sample = source.sample(draw.row)
        change = Change.of(self.augment, self.seed, draw.source, draw.epoch, draw.row)
        return _Read(sample, change, [self._reading(source, image) for image in sample.images])

    def _reading(self, source: Source, image: Image) -> Callable[[], bytes]:
        if self.reads_at_once == 1:
            return partial(source.read, image)
        return self._pool.submit(source.read, image).result

    def _decoded(self, read: _Read) -> Iterator[Pixels]:
        for image, content in zip(read.sample.images, read.contents, strict=True):
            yield decode(image.name, content(), self.shape.image_size, read.change)

    @property
    def _pool(self) -> ThreadPoolExecutor:
        if self._opened is None or self._opened[0] != os.getpid():  # threads don't live on in a fork
            self._opened = (os.getpid(), ThreadPoolExecutor(self.reads_at_once, "read"))
        return self._opened[1]


def _grey(size: int) -> Pixels:
    return np.full((size, size, 3), 128, dtype=np.uint8)
