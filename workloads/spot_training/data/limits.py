"""What tracked data of other libraries does not resume exactly: sentences that the session says at `track()`.

Seen by trying torchdata 0.11 and datasets 5.2: see tests/spot_training/data/test_limits.py. Neither is imported here.
"""

from __future__ import annotations

from typing import Any

from spot_training.data.loader import ResumableLoader
from torch.utils.data import IterableDataset

_INSTEAD = "spot_training.ResumableLoader takes the same data set and options, and is exact"


def limits_of(thing: Any) -> list[str]:
    """Whole sentences, with what to write instead; none where a resume is exact."""
    if isinstance(thing, ResumableLoader):
        return thing.limits()
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(thing).__mro__}
    if "torchdata.StatefulDataLoader" in kinds:
        return [f"StatefulDataLoader: {what}: {_INSTEAD}" for what in _torchdata(thing)]
    if "datasets.IterableDataset" in kinds:
        return [f"datasets' IterableDataset: {what}: {_INSTEAD}" for what in _datasets(thing)]
    return []


def _torchdata(loader: Any) -> list[str]:
    found = ["random numbers that its rows draw (augmentation) are others after a resume"]
    if getattr(loader, "generator", None) is not None and not loader.num_workers:
        found.append("with a generator of its own, the epochs after the one that a resume was in have another order")
    if isinstance(loader.dataset, IterableDataset):
        if not hasattr(loader.dataset, "state_dict"):
            found.append("its stream has no state_dict(), and at an epoch's end a resume ends or starts over")
        found += _datasets(loader.dataset) if hasattr(loader.dataset, "_ex_iterable") else []
    return found


def _datasets(stream: Any) -> list[str]:
    if "BufferShuffled" in _kinds(getattr(stream, "_ex_iterable", None)):
        return ["its shuffle buffer is not kept: a resume loses the rows in it, and shuffles the rest otherwise"]
    return []


def _kinds(iterable: Any) -> str:
    """The names of a chain of iterables, each of which holds the one that it reads."""
    names: list[str] = []
    while iterable is not None and len(names) < 50:
        names.append(type(iterable).__name__)
        iterable = getattr(iterable, "ex_iterable", None)
    return " ".join(names)
