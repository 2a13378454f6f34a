"""What the README says of the tree and of the scenarios is so."""

from __future__ import annotations

from tests.readme import README, renewed


def test_the_readme_lists_every_file_and_every_scenario_as_they_are_now() -> None:
    text = README.read_text()
    assert renewed(text) == text, "renew it: make readme"
