"""What a loader of pictures and text gives: samples, laid out in rows of tokens, and the pixels that belong to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from workloads.errors import DataError

__all__ = ["IGNORED", "Batch", "DataError", "GlobalBatch", "Image", "Sample", "Shape", "Text", "lay_out"]

IGNORED = -100
"""The label where there is nothing to learn: questions, pictures, padding."""

LACKING = -1
"""The size of a picture that is not there."""


@dataclass(frozen=True, slots=True)
class Image:
    """A reference to a picture's bytes, which are read when they are needed."""

    file: str
    """Of its source; `hf` rows have the column's name."""
    size: int
    """Bytes."""
    crc: int
    """CRC32C of the bytes, so that a picture that changed is told from the one that was listed."""
    start: int | None = None
    """Where it begins in a shard; in a Hugging Face data set, its row."""
    member: str = ""
    """Its name in a shard."""

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.file}/{self.member}" if self.member else self.file


@dataclass(frozen=True)
class Sample:
    """One record of a source."""

    key: str
    """Source and record, for messages: `train.jsonl:12`."""
    images: tuple[Image, ...]
    """In the order of their places in the text."""
    turns: tuple[tuple[str, str], ...]
    """(question, answer): the answer is what is learnt."""
    facts: dict[str, Any] = field(default_factory=dict)
    """All other keys of the record, as they are."""


@dataclass(frozen=True)
class Shape:
    """What the model wants rows to be."""

    image_size: int
    """Pixels of a side, S."""
    tokens_per_image: int
    sequence_length: int
    """Tokens of a row, L."""
    image_token: int
    """Stands in `ids` where a picture's features are put."""
    end_token: int
    """Ends each answer, and fills up a row (there with segment 0)."""


@dataclass(frozen=True)
class Batch:
    """One micro-batch."""

    pixels: Tensor
    """[images, 3, S, S] float32, normalised to mean 0.5 and deviation 0.5, in the order of their places in `ids`."""
    ids: Tensor
    """[rows, L] int64; each picture is `tokens_per_image` times `image_token`."""
    labels: Tensor
    """[rows, L] int64, at the same places as `ids` (the model's loss shifts); IGNORED where nothing is learnt."""
    positions: Tensor
    """[rows, L] int64, from 0 in each packed sample."""
    segments: Tensor
    """[rows, L] int64: 1, 2, ... the packed samples of a row; 0 is padding."""
    samples: tuple[tuple[Sample, ...], ...]
    """Of each row."""


@dataclass(frozen=True)
class GlobalBatch:
    """One optimizer step's samples, as one rank sees them."""

    micro_batches: list[Batch]
    targets: int
    """Labels that the shifted loss counts, over all ranks: what the summed loss is divided by. It is known before a
    picture is read, so those of samples that were left out are in it."""
    broken: tuple[str, ...] = ()
    """What was left out of it on this rank, by name, with `on_broken: skip`."""


@dataclass(frozen=True)
class Text:
    """A sample's tokens with one `image_token` for each picture."""

    ids: tuple[int, ...]
    learnt: tuple[bool, ...]
    """Of each token, whether it is an answer's."""
    images: int

    def length(self, tokens_per_image: int) -> int:
        """Places in a row."""
        return len(self.ids) + self.images * (tokens_per_image - 1)

    @property
    def targets(self) -> int:
        """How many labels the shifted loss counts: a sample's first token is nobody's to predict."""
        return sum(self.learnt[1:])


def lay_out(rows: Sequence[Sequence[Text]], shape: Shape) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """ids, labels, positions and segments, [len(rows), L] int64 each. The texts of a row must fit into it."""
    size = (len(rows), shape.sequence_length)
    ids = torch.full(size, shape.end_token, dtype=torch.int64)
    labels = torch.full(size, IGNORED, dtype=torch.int64)
    positions, segments = torch.zeros(size, dtype=torch.int64), torch.zeros(size, dtype=torch.int64)
    for row, texts in enumerate(rows):
        start = 0
        for number, text in enumerate(texts, 1):
            token = torch.tensor(text.ids, dtype=torch.int64)
            learnt = torch.tensor(text.learnt)
            times = torch.where(token == shape.image_token, shape.tokens_per_image, 1)
            token, learnt = token.repeat_interleave(times), learnt.repeat_interleave(times)
            span = slice(start, start + len(token))
            learnt[:1] = False  # there is no token before it in its segment
            ids[row, span] = token
            labels[row, span] = torch.where(learnt, token, IGNORED)
            positions[row, span] = torch.arange(len(token))
            segments[row, span] = number
            start = span.stop
    return ids, labels, positions, segments
