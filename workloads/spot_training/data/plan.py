"""Which rows make which batch of an epoch, for one rank: by the order, or by somebody's own sampler."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from itertools import islice
from typing import Any, Protocol

from spot_training.data.errors import DataError
from spot_training.data.order import Order, derive
from spot_training.data.randomness import generators_in, global_generators, seeded
from torch.utils.data import DistributedSampler

_COMPARED = 256  # places of a sampler's order that are asked for twice


class Plan(Protocol):
    """Batches by epoch and number, whoever asks and whenever."""

    def batches(self, epoch: int, start: int) -> Iterator[list[Any]]:
        """This rank's rows of each batch from number `start` on."""

    def length(self, epoch: int) -> int:
        """How many batches an epoch has."""

    def facts(self) -> dict[str, Any]:
        """What the order depends on beside the epoch: with other facts a run can't go on where it was."""


class Share:
    """Global batches of `batch_size` rows for each of `world_size` ranks; a rank takes its slice.

    So a global batch has the same rows at any world size with the same product. Where an epoch's last batch is not
    whole and there are several ranks, its first rows are taken again until all ranks have equally many.
    """

    def __init__(self, *, batch_size: int, drop_last: bool, rank: int, world_size: int) -> None:
        self.drop_last, self.rank, self.world_size = drop_last, rank, world_size
        self.whole = batch_size * world_size

    def count(self, rows: int) -> int:
        return rows // self.whole if self.drop_last else -(-rows // self.whole)

    def of(self, batch: list[Any]) -> list[Any]:
        short = -len(batch) % self.world_size
        padded = batch + [batch[place % len(batch)] for place in range(short)]
        size = len(padded) // self.world_size
        return padded[self.rank * size : (self.rank + 1) * size]


class Rows:
    """All rows of a data set, shuffled by seed and epoch or as they lie."""

    def __init__(self, size: int, share: Share, *, shuffle: bool, seed: int) -> None:
        self.size, self.share, self.shuffle, self.seed = size, share, shuffle, seed

    def batches(self, epoch: int, start: int) -> Iterator[list[Any]]:
        order = Order(self.size, seed=self.seed, epoch=epoch, shuffle=self.shuffle)
        groups = order.groups(start * self.share.whole, self.share.whole)
        yield from map(self.share.of, islice(groups, max(0, self.length(epoch) - start)))

    def length(self, epoch: int) -> int:
        return self.share.count(self.size)

    def facts(self) -> dict[str, Any]:
        return {
            "rows": self.size,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "global_batch": self.share.whole,
            "drop_last": self.share.drop_last,
        }


class Sampled:
    """Rows in the order of a sampler, or batches of a batch sampler, made a function of seed and epoch.

    What it draws is seeded, whichever generator it draws from, and `set_epoch` is called where it has one.
    """

    def __init__(self, sampler: Iterable[Any], size: int, share: Share | None, *, seed: int) -> None:
        name = type(sampler).__name__
        if isinstance(sampler, DistributedSampler):
            raise DataError(f"leave {name} out (and say shuffle=True): each rank is given its own rows here already")
        if not isinstance(sampler, Sized):
            raise DataError(f"{name} has no __len__: an epoch must have an end")
        self.sampler, self.size, self.share, self.seed = sampler, size, share, seed
        self._known: tuple[int, list[Any]] = (-1, [])

    def batches(self, epoch: int, start: int) -> Iterator[list[Any]]:
        order = self._order(epoch)
        if self.share is None:
            yield from order[start:]
            return
        whole = self.share.whole
        for number in range(start, self.length(epoch)):
            yield self.share.of(order[number * whole : (number + 1) * whole])

    def length(self, epoch: int) -> int:
        order = self._order(epoch)
        return self.share.count(len(order)) if self.share else len(order)

    def facts(self) -> dict[str, Any]:
        facts = {"rows": self.size, "seed": self.seed, "sampler": type(self.sampler).__name__}
        return facts | ({"global_batch": self.share.whole, "drop_last": self.share.drop_last} if self.share else {})

    def _order(self, epoch: int) -> list[Any]:
        if self._known[0] != epoch:
            first = self._asked(epoch)
            if self._known[0] < 0 and self._asked(epoch)[:_COMPARED] != first[:_COMPARED]:
                raise DataError(
                    f"{type(self.sampler).__name__} gives another order when it is asked again for the same epoch with "
                    f"the same random numbers: let it keep no count of its own, and take the epoch from "
                    f"set_epoch(epoch), which is called here"
                )
            self._known = (epoch, first)
        return self._known[1]

    def _asked(self, epoch: int) -> list[Any]:
        if callable(set_epoch := getattr(self.sampler, "set_epoch", None)):
            set_epoch(epoch)
        most = len(self.sampler) + 1
        with seeded([*global_generators(), *generators_in(self.sampler)], derive("sampler", self.seed, epoch)):
            order = list(islice(iter(self.sampler), most))
        if len(order) == most:
            raise DataError(f"{type(self.sampler).__name__} gives more than the {most - 1} that its __len__ says")
        return order


def refuse_changes(then: dict[str, Any], now: dict[str, Any], *, ranks: int) -> None:
    """Compare facts of a run with those that it was started with.

    Raises:
        DataError: the batches would be others.
    """
    changed = [name for name in sorted(now.keys() | then.keys()) if now.get(name) != then.get(name)]
    if not changed:
        return
    said = [", ".join(f"{name} was {then.get(name)} and is {now.get(name)}" for name in changed)]
    if "rows" in changed:
        rows = then.get("rows")
        said.append(f"dataset = torch.utils.data.Subset(dataset, range({rows})) keeps to the rows that it had")
    if "global_batch" in changed and (whole := then.get("global_batch")) and whole % ranks == 0:
        said.append(f"batch_size = {whole // ranks} with {ranks} ranks gives the batches that it had")
    raise DataError(
        f"the batches would be others than the run was started with: {'; '.join(said)}. Put back what it was, or start "
        f"a new run under another run_id"
    )
