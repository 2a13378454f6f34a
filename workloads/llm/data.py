"""Rows of tokens, and their order: a pure function of the seed and the epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from workloads.errors import DataError
from workloads.llm.tokens import Tokens, describe_change

IGNORED = -100
"""The target where there is nothing to predict: behind the end of the last row."""


@dataclass(frozen=True)
class Rows:
    """Tokens cut into rows of `length`. Each token but the very first is the target of exactly one place."""

    tokens: Tokens
    length: int

    def __deepcopy__(self, _: dict[int, Any]) -> Rows:
        return self  # nobody writes to the tokens, which may be larger than memory

    def __len__(self) -> int:
        return math.ceil(max(0, len(self.tokens) - 1) / self.length)

    def batch(self, indices: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Inputs and targets, [len(indices), length] int64 each; a target is the token after its input."""
        inputs = np.zeros((len(indices), self.length), dtype=np.int64)
        targets = np.full((len(indices), self.length), IGNORED, dtype=np.int64)
        for row, index in enumerate(indices):
            start = int(index) * self.length
            span = self.tokens[start : start + self.length + 1].astype(np.int64)
            inputs[row, : len(span) - 1] = span[:-1]
            targets[row, : len(span) - 1] = span[1:]
        return torch.from_numpy(inputs), torch.from_numpy(targets)

    def targets_in(self, indices: npt.NDArray[np.int64]) -> int:
        """How many places of these rows have something to predict."""
        left = len(self.tokens) - 1 - indices * self.length
        return int(np.minimum(left, self.length).sum())


def split_rows(tokens: Tokens, length: int, eval_fraction: float) -> tuple[Rows, Rows]:
    """Rows to train on and rows to evaluate on: the end of the text, which has its files in no particular order.

    Raises:
        DataError: there is not a row for each.
    """
    rows = Rows(tokens, length)
    held_out = max(1, round(len(rows) * eval_fraction)) if eval_fraction else 0
    border = (len(rows) - held_out) * length
    if border <= 0:
        raise DataError(
            f"{len(tokens)} tokens are {len(rows)} rows of {length}, too few to train on: more text, or a shorter "
            f"data.sequence_length"
        )
    return Rows(tokens[: border + 1], length), Rows(tokens[border:], length)


@dataclass(frozen=True)
class GlobalBatch:
    """One optimizer step's samples, as one rank sees them."""

    micro_batches: list[tuple[Tensor, Tensor]]
    """This rank's inputs and targets, [micro_batch, length] each."""
    targets: int
    """Places with something to predict, over all ranks: what the summed loss is divided by."""


class Batches:
    """Global batches without end. Sample n is row `order(n // rows)[n % rows]`, whatever came before and however many
    ranks share the work; its state is one counter.

    Raises:
        DataError: global_batch can't be shared out evenly.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        seed: int,
        fingerprint: dict[str, Any],
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
        self.rows, self.seed, self.fingerprint = rows, seed, fingerprint
        self.global_batch, self.micro_batch = global_batch, micro_batch
        self.rank, self.world_size = rank, world_size
        self.samples = 0
        self._passed: list[tuple[int, int]] = []
        self._order = (-1, np.empty(0, dtype=np.int64))

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """The rows of one epoch, [rows]: each once."""
        if self._order[0] != epoch:
            # RandomState and SeedSequence, because NumPy promises that their streams never change.
            source = np.random.RandomState(np.random.MT19937(np.random.SeedSequence((self.seed, epoch))))
            self._order = (epoch, source.permutation(len(self.rows)).astype(np.int64))
        return self._order[1]

    def indices(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """The rows of samples start to stop, [stop - start]; an epoch's end may lie in between."""
        size, parts = len(self.rows), []
        while start < stop:
            epoch, first = divmod(start, size)
            last = min(first + stop - start, size)
            parts.append(self.order(epoch)[first:last])
            start += last - first
        return np.concatenate(parts)

    def __iter__(self) -> Iterator[GlobalBatch]:
        return self

    def __next__(self) -> GlobalBatch:
        batch = self._take(self.global_batch)
        mine = np.array_split(batch, self.world_size)[self.rank]
        micro_batches = [
            self.rows.batch(mine[start : start + self.micro_batch]) for start in range(0, len(mine), self.micro_batch)
        ]
        return GlobalBatch(micro_batches, self.rows.targets_in(batch))

    def _take(self, count: int) -> npt.NDArray[np.int64]:
        """The rows of the next `count` samples that are not passed over, [count]."""
        parts = []
        while count:
            while ends := [end for start, end in self._passed if start <= self.samples < end]:
                self.samples = max(ends)
            ahead = [start - self.samples for start, _ in self._passed if start > self.samples]
            some = min([count, *ahead])
            parts.append(self.indices(self.samples, self.samples + some))
            self.samples += some
            count -= some
        return np.concatenate(parts)

    def place(self) -> int:
        """Where the loop is: samples that were handed out or passed over."""
        return self.samples

    def pass_over(self, spans: Sequence[Sequence[int]]) -> None:
        """Leave out the samples from one place to another: a run that never had them."""
        self._passed = [(start, end) for start, end in spans]

    def state_dict(self) -> dict[str, Any]:
        """JSON-able: how many samples were handed out, and what they were drawn from."""
        epoch = self.samples // len(self.rows)
        return {"samples": self.samples, "epoch": epoch, "seed": self.seed, "fingerprint": self.fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken.

        Raises:
            DataError: the samples would be others than those the run was started with.
        """
        change = describe_change(state["fingerprint"], self.fingerprint)
        if state["seed"] != self.seed:
            change = "; ".join(filter(None, (change, f"training.seed was {state['seed']} and is {self.seed}")))
        if change is not None:
            raise DataError(
                f"the checkpoint was made with other data: {change}. Put back what the run was started with, or start "
                f"a new run under another run_id"
            )
        self.samples = int(state["samples"])


def eval_batches(rows: Rows, *, micro_batch: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Up to `count` inputs and targets, [micro_batch or fewer, length] each: the same ones every time."""
    for start in range(0, min(len(rows), count * micro_batch), micro_batch):
        yield rows.batch(np.arange(start, min(start + micro_batch, len(rows)), dtype=np.int64))
