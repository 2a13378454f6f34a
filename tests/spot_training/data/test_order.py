"""The order: each row once, a pure function, the same for ever."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spot_training.data.order import Order, derive


def whole(order: Order, group: int = 7) -> list[int]:
    return [row for rows in order.groups(0, group) for row in rows]


@given(size=st.integers(1, 300), seed=st.integers(0, 10), epoch=st.integers(0, 10))
@settings(deadline=None, max_examples=100)
def test_an_epoch_has_every_row_exactly_once(size: int, seed: int, epoch: int) -> None:
    assert sorted(whole(Order(size, seed=seed, epoch=epoch))) == list(range(size))


@given(size=st.integers(1, 5000), start=st.integers(0, 5000), group=st.integers(1, 600))
@settings(deadline=None, max_examples=50)
def test_any_place_is_found_at_once_and_has_the_row_that_it_has_from_the_start(
    size: int, start: int, group: int
) -> None:
    order = Order(size, seed=3, epoch=1)
    assert [row for rows in order.groups(start, group) for row in rows] == whole(order)[start:]


def test_order_is_another_in_each_epoch_and_for_each_seed() -> None:
    orders = [whole(Order(50, seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_order_is_the_one_that_earlier_versions_had() -> None:
    """Runs that are under way when the project or torch is updated go on with their own order."""
    assert whole(Order(10, seed=7, epoch=3)) == [1, 7, 6, 0, 8, 4, 2, 5, 9, 3]
    assert Order(10**9, seed=7, epoch=3).rows(10**8, 10**8 + 3) == [786101693, 107551382, 20297494]
    assert derive("batch", 1, 2) == 5088925980240293977


@pytest.mark.slow
@pytest.mark.parametrize("size", [3, 4, 5])
def test_every_order_is_equally_likely(size: int) -> None:
    orders = Counter(tuple(whole(Order(size, seed=seed, epoch=0))) for seed in range(3000))
    possible = {3: 6, 4: 24, 5: 120}[size]
    expected = 3000 / possible
    surprise = sum((count - expected) ** 2 / expected for count in orders.values()) / (possible - 1)
    assert len(orders) == possible
    assert surprise < 1.6, "chi square over its degrees of freedom"


def test_a_thousand_million_rows_cost_nothing_ahead() -> None:
    rows = Order(10**9, seed=0, epoch=0).rows(5 * 10**8, 5 * 10**8 + 1000)
    assert len(set(rows)) == 1000
    assert all(0 <= row < 10**9 for row in rows)
