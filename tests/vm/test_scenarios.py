"""The list of scenarios is the tests' own."""

from __future__ import annotations

from tests.vm.scenarios import scenarios


def test_there_are_more_scenarios_than_the_28_of_the_best_in_the_field_and_none_twice_on_a_level() -> None:
    named = [(level, text) for level, _, text in scenarios()]
    assert len({text for _, text in named}) > 28
    assert len(set(named)) == len(named)
