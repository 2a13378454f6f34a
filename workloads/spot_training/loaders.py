"""A framework's `DataLoader`, made again as one that is resumed at any batch: the same rows in the same order."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

from spot_training.data import DataError, ResumableLoader
from torch.utils.data import IterableDataset

_OPTIONS = (
    "num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn", "prefetch_factor", "persistent_workers",
    "multiprocessing_context",
)  # fmt: skip


def resumable(loader: Any, *, seed: int) -> ResumableLoader[Any]:
    """`loader`'s batches, by its own samplers, resumable. Random transforms are seeded by batch.

    Raises:
        DataError: it can't be resumed exactly; says what to change.
    """
    if isinstance(loader, ResumableLoader):
        return loader
    if not getattr(loader, "in_order", True):
        raise DataError("dataloader_in_order=False: batches in the order of chance can't come again")
    options = {name: getattr(loader, name) for name in _OPTIONS if getattr(loader, name, None) is not None}
    if isinstance(loader.dataset, IterableDataset):
        return ResumableLoader(
            loader.dataset, loader.batch_size, drop_last=bool(loader.drop_last), seed=seed, **options
        )
    if loader.batch_sampler is None:
        return ResumableLoader(loader.dataset, None, sampler=_Epochs(loader.sampler), seed=seed, **options)
    return ResumableLoader(loader.dataset, batch_sampler=_Epochs(loader.batch_sampler), seed=seed, **options)


def drawn(loader: ResumableLoader[Any], before: Callable[[], None]) -> Generator[Any]:
    """What is left of `loader`'s epoch, for a loop that is the framework's: `before` is called ahead of each batch, and
    once more at the end, where nothing is left. `loader` is not asked before the first call, which may restore it."""
    batches: Iterator[Any] | None = None
    while True:
        before()
        if batches is None:
            batches = iter(loader)
        try:
            batch = next(batches)
        except StopIteration:
            return
        yield batch


class _Epochs:
    """A sampler of samplers: each of them is told the epoch."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        at = self.sampler
        while at is not None:
            if callable(set_epoch := getattr(at, "set_epoch", None)):
                set_epoch(epoch)
            at = getattr(at, "batch_sampler", None) or getattr(at, "sampler", None)
