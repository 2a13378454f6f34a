"""Streams go on where they were, by being read again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from spot_training import DataError, ResumableLoader
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from tests.spot_training.data.conftest import drawn, read, resumed


class Lines(IterableDataset[Tensor]):
    """Rows shuffled in a buffer, shared out among workers, with noise behind the dot."""

    def __init__(self, size: int = 23, *, buffer: int = 4) -> None:
        self.size, self.buffer = size, buffer
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[Tensor]:
        info = get_worker_info()
        mine = range(info.id, self.size, info.num_workers) if info else range(self.size)
        held: list[int] = []
        for row in mine:
            held.append(row)
            if len(held) > self.buffer:
                yield self.row(held.pop(random.randrange(len(held))))
        yield from map(self.row, held)

    def row(self, number: int) -> Tensor:
        return torch.tensor(100 * self.epoch + number + torch.rand(()).item() / 2, dtype=torch.float64)


def make(**options: Any) -> ResumableLoader[Tensor]:
    return ResumableLoader(Lines(), 3, **options)


def check(cuts: list[int], **options: Any) -> None:
    straight = read(make(**options).forever(), 20)
    rows = sorted(int(row) for batch in straight for row in batch)
    assert rows[:23] == list(range(23)), "every row of the first epoch once"
    for cut in cuts:
        loader = make(**options)
        got = read(loader.forever(), cut)
        for more in (3, 17 - cut):
            loader = resumed(lambda: make(**options), loader.state_dict())
            got += read(loader.forever(), more)
        assert got == straight


def test_a_stream_cut_anywhere_and_resumed_twice_gives_what_the_straight_run_gets() -> None:
    check([0, 1, 7, 8, 9, 15])


def test_a_streams_last_batch_may_be_left_out() -> None:
    check([8], drop_last=False)
    assert [len(batch) for batch in make(drop_last=True)] == [3] * 7


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"persistent_workers": True}])
def test_workers_that_share_a_stream_out_go_on_with_their_parts(options: dict[str, Any]) -> None:
    check([5, 9], num_workers=2, **options)


def test_reading_a_stream_draws_nothing_that_the_loop_would_miss() -> None:
    before = drawn()
    read(make().forever(), 12)
    assert drawn() == before


def test_another_number_of_workers_would_share_a_stream_out_otherwise_and_is_refused() -> None:
    loader = make()
    with pytest.raises(DataError, match="num_workers was 1 and is 3"):
        make(num_workers=3).load_state_dict(loader.state_dict())


class Listed(IterableDataset[int]):
    """Goes on where it was when it is read again."""

    def __init__(self) -> None:
        self.rows = iter(range(100))

    def __iter__(self) -> Iterator[int]:
        return self.rows


def test_a_stream_that_does_not_begin_anew_is_refused_with_the_first_batch() -> None:
    with pytest.raises(DataError, match="Listed began otherwise when it was read twice"):
        next(ResumableLoader(Listed(), 2).forever())


def test_a_stream_that_holds_other_rows_after_a_restart_is_refused() -> None:
    loader = make()
    read(loader.forever(), 4)
    other = resumed(lambda: ResumableLoader(Lines(buffer=9), 3), loader.state_dict())
    with pytest.raises(DataError, match="batch 3 of epoch 0 is not what it was before"):
        next(other.forever())


def test_a_stream_is_not_shuffled_from_outside() -> None:
    with pytest.raises(DataError, match="shuffle inside of it"):
        make(shuffle=True)


def test_an_empty_stream_is_no_endless_loop() -> None:
    with pytest.raises(DataError, match="gave no batch"):
        next(ResumableLoader(Lines(0), 3).forever())


def test_a_workers_start_finds_the_data_set_that_was_given() -> None:
    """torch's own recipe: `get_worker_info().dataset` is changed by the worker's start."""
    loader = ResumableLoader[Any](Lines(6), 3, num_workers=1, worker_init_fn=smaller)
    assert len(read(iter(loader), 1)) == 1
    assert sum(1 for _ in loader) == 1


def smaller(worker: int) -> None:
    info: Any = get_worker_info()
    info.dataset.size = 3
