"""What a loader is given: refused at once where it can't be resumed, and the place of this process among the ranks."""

from __future__ import annotations

import os
from typing import Any

import torch
from spot_training.data.errors import DataError
from torch.utils.data import IterableDataset


def place() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def check(dataset: Any, options: dict[str, Any]) -> None:
    """Refuse what has no rows by number, and options that stand for chance.

    Raises:
        DataError: naming what to change.
    """
    name = type(dataset).__name__
    for method in ("__len__", "__getitem__"):
        if not hasattr(dataset, method) and not isinstance(dataset, IterableDataset):
            raise DataError(f"{name} has no {method}: rows are asked for by their number")
    if options.get("generator") is not None:
        raise DataError("leave generator out: seed=... says the order")
    if not options.get("in_order", True):
        raise DataError("leave in_order=False out: batches in the order of chance can't come again")
