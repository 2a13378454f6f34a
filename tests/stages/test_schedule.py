import math

import pytest

from workloads.stages.schedule import Schedule, learning_rate_factor


def factor(step: int, schedule: Schedule, warmup_steps: int = 10) -> float:
    return learning_rate_factor(step, schedule=schedule, warmup_steps=warmup_steps, max_steps=110, min_ratio=0.1)


@pytest.mark.parametrize("schedule", ["cosine", "wsd", "constant"])
def test_warm_up_rises_evenly_to_the_full_rate(schedule: Schedule) -> None:
    assert [factor(step, schedule) for step in range(10)] == pytest.approx([n / 10 for n in range(1, 11)])
    assert factor(10, schedule) == 1.0


def test_cosine_is_half_way_in_the_middle_and_lowest_at_the_end() -> None:
    assert factor(60, "cosine") == pytest.approx(0.55)
    assert factor(35, "cosine") == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert factor(110, "cosine") == pytest.approx(0.1)


def test_wsd_stays_up_and_falls_in_the_last_fifth() -> None:
    assert [factor(step, "wsd") for step in (10, 50, 88)] == [1.0, 1.0, 1.0]
    assert factor(99, "wsd") == pytest.approx(0.55)
    assert factor(110, "wsd") == pytest.approx(0.1)


def test_constant_stays() -> None:
    assert {factor(step, "constant") for step in (10, 60, 109)} == {1.0}


def test_no_warm_up_starts_at_the_full_rate() -> None:
    assert factor(0, "cosine", warmup_steps=0) == 1.0
