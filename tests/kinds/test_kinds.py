"""Every kind of script in the table resumes exactly, or is told why not. No row is silent."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kinds.lives import Life, Nursery
from tests.kinds.table import TABLE, Row, rows, table

FRAMEWORKS = ("accelerate", "transformers.trainer", "transformers.models.gpt2.modeling_gpt2", "lightning")
CUTS = ("forward:1", "update:3", "behind:4")
FAST = ("loader",)
FAST_TOLD = ("best", "untracked_scaler")
ROWS = {row.name: row for row in rows()}


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path_factory.mktemp("kinds"))
    yield nursery
    nursery.close()


@pytest.fixture(scope="module")
def frameworks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Where the frameworks are imported already, which takes longer than the rows do."""
    found = [name for name in FRAMEWORKS if importlib.util.find_spec(name.split(".")[0])]
    nursery = Nursery(tmp_path_factory.mktemp("frameworks"), *found)
    yield nursery
    nursery.close()


STRIDE = 1 if os.environ.get("EVERY_ROW") else 3
"""CI runs every third row, `make kinds` all of them."""


@pytest.mark.parametrize("name", FAST)
def test_a_common_kind_of_script_resumes_exactly(name: str, nursery: Nursery) -> None:
    must_be_exact(nursery, ROWS[name], CUTS[1:])


@pytest.mark.parametrize("name", FAST_TOLD)
def test_a_common_fault_is_told(name: str, nursery: Nursery) -> None:
    must_be_told(nursery, ROWS[name])


OWN = {name: row for name, row in ROWS.items() if row.group != "Frameworks"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, row in OWN.items() if not row.told][::STRIDE])
def test_a_kind_of_script_resumes_exactly_twice_wherever_it_is_cut(name: str, nursery: Nursery) -> None:
    must_be_exact(nursery, ROWS[name], CUTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, row in OWN.items() if row.told][::STRIDE])
def test_a_kind_of_script_that_can_not_resume_exactly_is_told(name: str, nursery: Nursery) -> None:
    must_be_told(nursery, ROWS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ROWS if name not in OWN][::STRIDE])
def test_a_frameworks_loop_resumes_exactly_or_is_told(name: str, frameworks: Nursery) -> None:
    if ROWS[name].told:
        must_be_told(frameworks, ROWS[name])
    else:
        must_be_exact(frameworks, ROWS[name], CUTS)


def test_the_table_in_the_docs_says_what_is_tested() -> None:
    assert TABLE.read_text() == table(), "run `python -m tests.kinds.table`"


def must_be_exact(nursery: Nursery, row: Row, cuts: tuple[str, ...]) -> None:
    skip_what_is_missing(row)
    undisturbed = nursery.live(row.script)
    assert not undisturbed.trouble, undisturbed.trouble + undisturbed.output
    assert undisturbed.status == 0, undisturbed.output
    assert "after a resume" not in undisturbed.output
    life: Life | None = None
    lines: dict[int, dict[str, Any]] = {}
    for strike in (*cuts, None):
        after = life.saved if life else None
        life = nursery.live(row.script, after=after, strike=strike)
        lines |= life.lines
        assert not life.trouble, f"{strike}: {life.trouble}\n{life.output}"
        assert life.struck == bool(strike), f"{strike}: {life.status}\n{life.output}"
        assert life.restored == (after.step if after else 0), "the way, not only the outcome"
        assert life.saved
        assert not after or life.saved.step > after.step
    assert life
    assert life.status == 0, life.output
    assert lines == undisturbed.lines
    assert life.saved
    assert undisturbed.saved
    differences = life.saved.differences(undisturbed.saved)
    assert differences == []


def must_be_told(nursery: Nursery, row: Row) -> None:
    skip_what_is_missing(row)
    life = nursery.live(row.script)
    output = life.output
    if life.status == 0 and row.told not in words(row, output):  # what shows only when it comes back
        struck = nursery.live(row.script, strike=CUTS[1])
        output += nursery.live(row.script, after=struck.saved).output
    assert row.told in words(row, output)


def words(row: Row, output: str) -> str:
    return re.sub(rf"{row.script.name}:\d+", f"{row.script.name}:LINE", " ".join(output.split()))


def skip_what_is_missing(row: Row) -> None:
    if row.missing:
        pytest.skip(f"{', '.join(row.missing)} is not installed")
