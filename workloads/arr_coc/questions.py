"""A batch of pictures and text, as this model takes it: each sample by itself, without places for its picture."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from workloads.pictures.batch import IGNORED, Batch, DataError, Sample

NOWHERE = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Questions:
    """N samples, each with one picture and one question."""

    pixels: Tensor
    """[N, 3, S, S]."""
    ids: Tensor
    """[N, T] int64: question and answer."""
    labels: Tensor
    """[N, T] int64: of the answer, the token that stands there; else IGNORED. The text before it predicts it."""
    asked: Tensor
    """[N, T] bool: the question's tokens."""
    regions: Tensor
    """[N, 4]: x0, y0, x1, y1 as shares of the picture, where the answer is; NOWHERE where nobody knows."""
    keys: tuple[int, ...]
    """A number for each sample, the same each time that it comes."""
    samples: tuple[Sample, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def spread(self, count: int) -> Questions:
        """Up to `count` of them, from first to last."""
        step = -(-len(self) // count)
        return self._each(lambda tensor: tensor[::step], self.keys[::step], self.samples[::step])

    def to(self, device: torch.device) -> Questions:
        """The same with its tensors there."""
        return self._each(lambda tensor: tensor.to(device), self.keys, self.samples)

    def _each(
        self, change: Callable[[Tensor], Tensor], keys: tuple[int, ...], samples: tuple[Sample, ...]
    ) -> Questions:
        return Questions(
            change(self.pixels), change(self.ids), change(self.labels), change(self.asked), change(self.regions),
            keys, samples,
        )  # fmt: skip


def questions_of(batch: Batch, image_token: int) -> Questions:
    """Each sample of each row, for a layout with one token for a picture.

    Raises:
        DataError: a sample has no picture or several, or several questions.
    """
    texts: list[tuple[Tensor, Tensor]] = []
    samples = [sample for row in batch.samples for sample in row]
    for ids, labels, segments, row in zip(batch.ids, batch.labels, batch.segments, batch.samples, strict=True):
        for number, sample in enumerate(row, 1):
            if len(sample.images) != 1 or len(sample.turns) != 1:
                raise DataError(
                    f"{sample.key} has {len(sample.images)} pictures and {len(sample.turns)} questions: kind arr-coc "
                    f"shares one picture out for one question; write a record for each"
                )
            text = (segments == number) & (ids != image_token)
            texts.append((ids[text], labels[text]))
    longest = max(len(ids) for ids, _ in texts)
    ids = torch.zeros(len(texts), longest, dtype=torch.int64)
    labels = torch.full_like(ids, IGNORED)
    asked = torch.zeros_like(ids, dtype=torch.bool)
    for number, (words, learnt) in enumerate(texts):
        ids[number, : len(words)], labels[number, : len(words)] = words, learnt
        asked[number, : len(words)] = learnt == IGNORED
    regions = torch.tensor([sample.facts.get("region") or NOWHERE for sample in samples])
    keys = tuple(zlib.crc32(sample.key.encode()) for sample in samples)
    return Questions(batch.pixels, ids, labels, asked, regions, keys, tuple(samples))
