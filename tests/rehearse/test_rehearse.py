"""A rehearsal finds the fault that each of some scripts holds, by its name, and says nothing against others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rehearse.rehearsed import names_in, rehearsed, told
from tests.rehearse.theatre import Zygote

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
STRIDE = 1 if os.environ.get("EVERY_ROW") else 4
"""CI plays every fourth script, `make rehearsals` all of them."""
FAULTS = sorted((HERE / "faults").glob("*.py"))
GOOD = sorted((HERE / "good").glob("*.py"))


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    zygote = Zygote()
    yield zygote
    zygote.close()


def test_there_are_enough_of_both() -> None:
    assert len(FAULTS) >= 25
    assert len(GOOD) >= 20


@pytest.mark.parametrize("script", FAULTS[::STRIDE], ids=lambda path: path.stem)
def test_the_fault_is_found_and_named(zygote: Zygote, script: Path, tmp_path: Path) -> None:
    verdict = rehearsed(zygote, script, tmp_path)
    assert verdict.outcome != "exact"
    assert any(name in told(verdict) for name in names_in(script)), told(verdict)


@pytest.mark.parametrize("script", GOOD[::STRIDE], ids=lambda path: path.stem)
def test_nothing_is_said_against_a_good_script(zygote: Zygote, script: Path, tmp_path: Path) -> None:
    verdict = rehearsed(zygote, script, tmp_path)
    assert verdict.outcome == "exact", told(verdict)
