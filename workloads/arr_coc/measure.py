"""What is measured of a model: its answers, its tokens, and where it looked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from agent.config.arr_coc import Reduction
from workloads.arr_coc.cells import overlap
from workloads.arr_coc.model import ArrCocModel, Seen
from workloads.arr_coc.questions import NOWHERE, Questions
from workloads.pictures.batch import IGNORED


@dataclass(frozen=True)
class Sums:
    """Over samples; what is not known of a sample is not counted."""

    samples: int = 0
    loss: float = 0.0
    """Of the answers' tokens, of which there are `targets`."""
    targets: int = 0
    right: int = 0
    """Samples whose answer is right to its end, given the right tokens before each: so the model says it by itself."""
    overlap: float = 0.0
    placed: int = 0
    """Samples of which it is known where the answer is."""
    tokens: int = 0
    lod: float = 0.0
    """Tokens of the regions that have any, a mean for each sample."""

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    @property
    def accuracy(self) -> float:
        return self.right / max(1, self.samples)

    @property
    def iou(self) -> float:
        return self.overlap / max(1, self.placed)


def summed_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits [N, T, V] of each token and what stands there, [N, T] -> cross-entropy, summed."""
    flat = logits.float().flatten(0, 1)
    return cross_entropy(flat, labels.flatten(), ignore_index=IGNORED, reduction="sum")


@torch.no_grad()
def sums_of(asked: Questions, logits: Tensor, seen: Seen) -> Sums:
    """What a batch adds to the sums."""
    learnt = asked.labels != IGNORED
    right = ((logits.argmax(-1) == asked.labels) | ~learnt).all(1)
    placed = (asked.regions != torch.tensor(NOWHERE, device=asked.regions.device)).any(1)
    overlaps = overlap(seen.detail, asked.regions, seen.detail.shape[1])[placed]
    lod = 0.0
    if seen.levels is not None:
        lod = (seen.levels.sum(1) / (seen.levels > 0).sum(1).clamp_min(1)).sum().item()
    return Sums(
        samples=len(asked),
        loss=summed_loss(logits, asked.labels).item(),
        targets=int(learnt.sum()),
        right=int(right.sum()),
        overlap=overlaps.sum().item(),
        placed=int(placed.sum()),
        tokens=seen.tokens.shape[0] * seen.tokens.shape[1],
        lod=lod,
    )


@torch.no_grad()
def evaluate(
    model: ArrCocModel,
    batches: Iterable[Questions],
    budget: int,
    *,
    reduction: Reduction | None = None,
    beat: Callable[[], None] = lambda: None,
) -> Sums:
    """Over all `batches`, in evaluation mode; which mode the model is in afterwards is the caller's to say."""
    model.eval()
    total = Sums()
    for asked in batches:
        logits, seen = model(asked.pixels, asked.ids, asked.asked, budget, asked.keys, reduction=reduction)
        total += sums_of(asked, logits, seen)
        beat()
    return total


@torch.no_grad()
def said(logits: Tensor, labels: Tensor) -> Iterator[tuple[int, ...]]:
    """For each sample the likeliest tokens in the places of its answer."""
    for words, learnt in zip(logits.argmax(-1), labels != IGNORED, strict=True):
        yield tuple(words[learnt].tolist())
