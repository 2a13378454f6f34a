"""A loader that is cut at any batch, resumed twice, gives what the loop that was never cut gets."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spot_training import DataError, ResumableLoader
from torch import Tensor
from torch.utils.data import BatchSampler, RandomSampler, Subset, TensorDataset, WeightedRandomSampler

from tests.spot_training.data.conftest import Squares, drawn, read, resumed


def make(size: int = 20, **options: Any) -> ResumableLoader[Tensor]:
    given_ = {"batch_size": 3, "shuffle": True, "seed": 1} | options
    noise = given_.pop("noise", True)
    return ResumableLoader(Squares(size, noise=noise), **given_)


@pytest.mark.parametrize("drop_last", [False, True])
@given(cuts=st.lists(st.integers(0, 16), min_size=2, max_size=2))
@settings(deadline=None, max_examples=30)
def test_cut_at_any_batch_and_resumed_twice_gives_what_the_straight_run_gets(cuts: list[int], drop_last: bool) -> None:
    first, second = sorted(cuts)
    straight = read(make(drop_last=drop_last).forever(), 16)

    loader = make(drop_last=drop_last)
    got = read(loader.forever(), first)
    for until in (second, 16):
        loader = resumed(lambda: make(drop_last=drop_last), loader.state_dict())
        got += read(loader.forever(), until - len(got))

    assert got == straight


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"persistent_workers": True}, {"prefetch_factor": 4}])
def test_workers_make_the_very_batches_and_what_they_made_ahead_does_not_count(options: dict[str, Any]) -> None:
    straight = read(make().forever(), 16)

    loader = make(num_workers=2, **options)
    batches = loader.forever()
    got = read(batches, 5)
    del batches
    loader = resumed(lambda: make(num_workers=3, **options), loader.state_dict())
    batches = loader.forever()
    got += read(batches, 4)
    del batches
    loader = resumed(make, loader.state_dict())
    got += read(loader.forever(), 7)

    assert got == straight


def test_making_a_batch_draws_nothing_that_the_loop_would_miss() -> None:
    before = drawn()
    read(make().forever(), 9)
    assert drawn() == before


def test_random_transforms_draw_others_in_each_batch_and_epoch() -> None:
    numbers = [number for batch in read(make().forever(), 14) for number in batch]
    assert len({number % 1 for number in numbers}) == 40


class Holds(Squares):
    """Draws from generators of its own: one at hand, one made with its first row, one in a closure."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(0)
        self.late: torch.Generator | None = None
        other = np.random.RandomState(3)
        self.transform: Callable[[float], float] = lambda number: number + float(other.rand()) / 4

    def __getitem__(self, row: int) -> Tensor:
        self.late = self.late or torch.Generator()
        number = row + self.rng.random() / 4 + torch.rand((), generator=self.late).item() / 4
        return torch.tensor(self.transform(number), dtype=torch.float64)


def test_generators_that_a_data_set_holds_itself_are_seeded_too() -> None:
    straight = read(ResumableLoader(Holds(), 3, shuffle=True).forever(), 12)

    loader = ResumableLoader[Tensor](Holds(), 3, shuffle=True)
    got = read(loader.forever(), 5)
    again = resumed(lambda: ResumableLoader(Holds(), 3, shuffle=True), loader.state_dict())

    assert got + read(again.forever(), 7) == straight


def test_randomness_in_collation_is_seeded_and_kept_apart() -> None:
    def masked(rows: list[Tensor]) -> Tensor:
        return torch.stack(rows) * (torch.rand(len(rows)) > 0.5)

    straight = read(make(noise=False, collate_fn=masked).forever(), 8)
    before = drawn()
    loader = make(noise=False, collate_fn=masked)
    got = read(loader.forever(), 3)
    assert drawn() == before
    assert (
        got + read(resumed(lambda: make(noise=False, collate_fn=masked), loader.state_dict()).forever(), 5) == straight
    )


class Counts(Squares):
    """Gives another row each time it is asked."""

    asked = 0

    def __getitem__(self, row: int) -> Tensor:
        self.asked += 1
        return torch.tensor(row + self.asked / 1000)


def test_data_that_no_seed_reaches_is_refused_with_the_first_batch() -> None:
    with pytest.raises(DataError, match=r"Counts made another batch when it was asked twice.*counts what it was asked"):
        next(ResumableLoader(Counts()).forever())
    assert next(ResumableLoader[Tensor](Counts(), verify=False).forever()).item() == pytest.approx(0.001)


# --- epochs ---


def test_nested_epochs_go_on_in_the_middle_of_theirs() -> None:
    def loop(loader: ResumableLoader[Tensor], most: int) -> Iterator[tuple[int, list[float]]]:
        for epoch in loader.epochs(3):
            for batch in loader:
                yield epoch, batch.tolist()
                if (most := most - 1) == 0:
                    states.append(loader.state_dict())
                    return

    states: list[dict[str, Any]] = []
    straight = list(loop(make(), 100))
    assert len(straight) == 21
    for cut in (1, 6, 7, 8, 20):
        got = list(loop(make(), cut))
        assert got + list(loop(resumed(make, states[-1]), 100)) == straight


def test_a_loop_that_breaks_off_begins_a_new_epoch_as_with_a_plain_loader() -> None:
    loader = make(shuffle=False, noise=False)
    for _ in range(3):
        assert [batch.tolist() for batch in islice(loader, 2)] == [[0, 1, 2], [3, 4, 5]]
    assert loader.epoch == 3


def test_one_batch_of_a_new_iterator_each_step_is_exact_too() -> None:
    def step(loader: ResumableLoader[Tensor]) -> list[float]:
        found: list[float] = next(iter(loader)).tolist()
        return found

    loader = make()
    straight = [step(loader) for _ in range(8)]
    loader = make()
    got = [step(loader) for _ in range(3)]
    loader = resumed(make, loader.state_dict())
    assert got + [step(loader) for _ in range(5)] == straight
    assert len({tuple(batch) for batch in straight}) == 8


def test_two_loops_over_one_loader_are_refused() -> None:
    loader = make()
    batches = iter(loader)
    next(batches)
    with pytest.raises(DataError, match=r"iterated already.*batches = loader\.forever\(\)"):
        iter(loader)
    del batches
    next(iter(loader))


def test_an_epoch_that_nobody_reads_is_no_endless_loop() -> None:
    with pytest.raises(DataError, match="iterate the loader inside of epochs"):
        list(make().epochs(2))


def test_length_is_an_epochs_wherever_a_run_goes_on() -> None:
    loader = make()
    read(loader.forever(), 4)
    assert len(resumed(make, loader.state_dict())) == len(make()) == 7
    assert len(make(drop_last=True)) == 6


# --- fetched ahead of the boundary ---


def rounds(loader: ResumableLoader[Tensor], count: int, *, ahead: int) -> tuple[list[list[float]], list[Any]]:
    """A loop that has fetched `ahead` batches when a step begins: what it trained on, its state at each boundary."""
    batches = loader.forever()
    held = [next(batches) for _ in range(ahead)]
    trained, states = [], []
    loader.on_first_boundary()
    for _ in range(count):
        states.append(loader.state_dict())
        held.append(next(batches))
        trained.append(held.pop(0).tolist())
    return trained, states


@pytest.mark.parametrize("ahead", [0, 1, 3])
@pytest.mark.parametrize("cut", [0, 1, 6, 7, 9])
def test_what_a_loop_fetched_ahead_is_given_again(ahead: int, cut: int) -> None:
    straight, states = rounds(make(), 16, ahead=ahead)
    again, states = rounds(resumed(make, states[cut]), 16 - cut, ahead=ahead)
    assert again == straight[cut:]
    third, _ = rounds(resumed(make, states[5]), 16 - cut - 5, ahead=ahead)
    assert third == straight[cut + 5 :]


def test_a_look_at_a_batch_before_the_first_step_is_refused_where_it_would_be_lost() -> None:
    loader = make()
    next(iter(loader))
    with pytest.raises(DataError, match="read before the first step that are not for the first steps"):
        loader.on_first_boundary()


def test_batches_taken_by_another_thread_are_refused() -> None:
    loader = make()
    loader.on_first_boundary()
    batches = loader.forever()
    found: list[BaseException] = []

    def take() -> None:
        try:
            next(batches)
        except DataError as error:
            found.append(error)

    thread = threading.Thread(target=take)
    thread.start()
    thread.join(10)
    assert "another thread" in str(found[0])


# --- ranks ---


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_a_global_batch_has_the_same_rows_at_any_world_size(ranks: int) -> None:
    def batches(world_size: int) -> list[list[float]]:
        loaders = [
            make(24, noise=False, batch_size=8 // world_size, rank=rank, world_size=world_size).forever()
            for rank in range(world_size)
        ]
        return [[row for loader in loaders for row in next(loader).tolist()] for _ in range(7)]

    assert batches(ranks) == batches(1)


def test_a_run_goes_on_at_another_world_size() -> None:
    straight = read(make(24, noise=False, batch_size=8).forever(), 6)
    loader = make(24, noise=False, batch_size=8)
    read(loader.forever(), 2)
    halves = [
        resumed(
            lambda rank=rank: make(24, noise=False, batch_size=4, rank=rank, world_size=2),  # type: ignore[misc]
            loader.state_dict(),
        ).forever()
        for rank in range(2)
    ]
    assert [next(halves[0]).tolist() + next(halves[1]).tolist() for _ in range(4)] == straight[2:]


def test_every_rank_has_a_share_of_the_last_batch() -> None:
    parts = [make(9, noise=False, shuffle=False, batch_size=2, rank=rank, world_size=4) for rank in range(4)]
    assert [[batch.tolist() for batch in part] for part in parts] == [
        [[0, 1], [8]],
        [[2, 3], [8]],
        [[4, 5], [8]],
        [[6, 7], [8]],
    ]


# --- what changed between two starts ---


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size": 30}, r"rows was 20 and is 30; .*Subset\(dataset, range\(20\)\)"),
        ({"seed": 2}, "seed was 1 and is 2"),
        ({"shuffle": False}, "shuffle was True and is False"),
        ({"drop_last": True}, "drop_last was False and is True"),
        ({"batch_size": 4}, r"global_batch was 3 and is 4; batch_size = 3 with 1 ranks"),
        ({"rank": 0, "world_size": 3}, r"global_batch was 3 and is 9; batch_size = 1 with 3 ranks"),
        ({"rank": 0, "world_size": 2}, r"global_batch was 3 and is 6\. Put back"),
    ],
)
def test_what_would_give_other_batches_is_refused_with_the_way_back(change: dict[str, Any], said: str) -> None:
    loader = make(noise=False)
    read(loader.forever(), 2)
    with pytest.raises(DataError, match=said + r".*another run_id"):
        make(noise=False, **change).load_state_dict(loader.state_dict())


def test_a_data_set_that_grew_goes_on_over_the_rows_that_it_had() -> None:
    straight = read(make(20, noise=False).forever(), 12)
    loader = make(20, noise=False)
    read(loader.forever(), 4)
    grown = resumed(
        lambda: ResumableLoader(Subset(Squares(30), range(20)), 3, shuffle=True, seed=1), loader.state_dict()
    )
    assert read(grown.forever(), 8) == straight[4:]


def test_other_data_in_as_many_rows_is_refused_with_the_first_batch() -> None:
    numbers = torch.arange(20)
    loader = ResumableLoader[Any](TensorDataset(numbers), 3, shuffle=True)
    for _ in islice(loader.forever(), 4):
        pass
    state = loader.state_dict()

    other = resumed(lambda: ResumableLoader(TensorDataset(numbers + 1), 3, shuffle=True), state)
    with pytest.raises(DataError, match=r"batch 3 of epoch 0 is not what it was before the restart.*random_split"):
        next(other.forever())
    unasked = resumed(lambda: ResumableLoader(TensorDataset(numbers + 1), 3, shuffle=True, verify=False), state)
    next(unasked.forever())


def test_numbers_that_were_rounded_otherwise_are_told_and_trained_on(caplog: pytest.LogCaptureFixture) -> None:
    numbers = torch.arange(20.0)
    loader = ResumableLoader[Any](TensorDataset(numbers), 3)
    for _ in islice(loader.forever(), 4):
        pass
    other = resumed(lambda: ResumableLoader(TensorDataset(numbers * (1 + 1e-6)), 3), loader.state_dict())
    next(other.forever())
    assert "not bit for bit" in caplog.text


# --- samplers ---


def samplers(kind: str) -> ResumableLoader[Tensor]:
    data = Squares()
    weights = [1.0] * 10 + [5.0] * 10
    options: dict[str, Any] = {
        "weighted": {"sampler": WeightedRandomSampler(weights, 20), "batch_size": 3},
        "own generator": {"sampler": RandomSampler(data, generator=torch.Generator()), "batch_size": 3},
        "batches": {"batch_sampler": BatchSampler(RandomSampler(data), 3, drop_last=True)},
        "a list": {"sampler": [4, 2, 8, 6, 1], "batch_size": 2},
    }
    return ResumableLoader(data, **options[kind])


@pytest.mark.parametrize("kind", ["weighted", "own generator", "batches", "a list"])
@pytest.mark.parametrize("cut", [1, 6, 8])
def test_a_sampler_of_ones_own_is_resumed_too(kind: str, cut: int) -> None:
    straight = read(samplers(kind).forever(), 14)
    loader = samplers(kind)
    got = read(loader.forever(), cut)
    assert got + read(resumed(lambda: samplers(kind), loader.state_dict()).forever(), 14 - cut) == straight
    if kind != "a list":
        assert straight[:6] != straight[7:13], "each epoch has its own order"


class Remembers(RandomSampler):
    epoch = 0

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        yield from ((row + self.epoch) % len(self) for row in range(len(self)))


def test_a_sampler_with_a_memory_is_refused() -> None:
    with pytest.raises(DataError, match=r"Remembers gives another order when it is asked again.*set_epoch"):
        ResumableLoader(Squares(), sampler=Remembers(Squares()))


def test_set_epoch_of_the_data_set_is_called_where_its_rows_are_made() -> None:
    class Curriculum(Squares):
        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def __getitem__(self, row: int) -> Tensor:
            return torch.tensor(self.epoch * 100 + row)

    loader = ResumableLoader[Tensor](Curriculum(4), 2)
    assert read(loader.forever(), 4) == [[0, 1], [2, 3], [100, 101], [102, 103]]


# --- refused at once ---


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"generator": torch.Generator()}, "leave generator out: seed="),
        ({"in_order": False}, "leave in_order=False out"),
        ({"batch_size": 30, "drop_last": True}, "20 rows are not one batch of 30"),
        ({"sampler": [1]}, "leave out shuffle"),
        ({"batch_sampler": [[1]]}, "batch_sampler says it all"),
        (
            {"shuffle": False, "sampler": torch.utils.data.DistributedSampler(Squares(), 2, 0)},
            "leave DistributedSampler out",
        ),
    ],
)
def test_options_that_can_not_be_resumed_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        make(**options)


def test_a_row_may_be_a_batch() -> None:
    assert [row.item() for row in ResumableLoader[Tensor](Squares(4), None)] == [0, 1, 2, 3]


def test_an_error_in_a_row_that_is_caught_loses_its_batch_alone() -> None:
    class Broken(Squares):
        def __getitem__(self, row: int) -> Tensor:
            if row == 4:
                raise OSError("this file is broken")
            return super().__getitem__(row)

    loader = ResumableLoader[Tensor](Broken(), 2)
    batches = loader.forever()
    read(batches, 2)
    with pytest.raises(OSError, match="broken"):
        next(batches)
    assert next(batches).tolist() == [6, 7]
    again = resumed(lambda: ResumableLoader(Broken(), 2), loader.state_dict())
    assert next(again.forever()).tolist() == [8, 9]


def test_the_state_is_small_and_goes_through_json() -> None:
    loader = make(noise=False)
    read(loader.forever(), 2)
    state = loader.state_dict()
    assert json.loads(json.dumps(state)) == state
    assert (state["epoch"], state["batch"]) == (0, 2)


@pytest.mark.parametrize("ahead", [False, True])
@given(first=st.integers(0, 15), count=st.integers(1, 9), cut=st.integers(0, 12))
@settings(deadline=None, max_examples=12)
def test_batches_that_are_passed_over_are_left_out_and_the_others_are_the_very_same(
    first: int, count: int, cut: int, ahead: bool
) -> None:
    """An epoch has 7; what is passed over may be all of one, and what follows the cut may begin in it."""
    straight = make()
    places = [straight.place()]
    batches = straight.forever()
    every = []
    for _ in range(26):
        every += read(batches, 1)
        places.append(straight.place())
    spans = [[places[first], places[first + count]]]
    wanted = every[:first] + every[first + count :]

    loader = make()
    loader.pass_over(spans)
    batches = loader.forever()
    got = read(batches, cut)
    if ahead:
        loader.on_first_boundary()  # `cut` batches were fetched for the steps to come
        got = []
    loader = resumed(make, loader.state_dict())
    loader.pass_over(spans)
    got += read(loader.forever(), 26 - count - len(got))

    assert got == wanted[: len(got)]
