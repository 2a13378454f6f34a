"""What each example builds is what somebody looked at: a change shows here, and in the commit that renews it."""

from __future__ import annotations

import copy
import difflib
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.cloud.examples import EXAMPLES, IN_TURN
from tests.cloud.golden import FOLDER, drawn, files

if TYPE_CHECKING:
    from tests.cloud.conftest import Synthesize

_MOST_LINES = 60


@pytest.mark.parametrize("name", IN_TURN)
def test_stacks_are_as_they_were_last_looked_at(
    name: str, synthesized: Synthesize, request: pytest.FixtureRequest
) -> None:
    folder = FOLDER / name
    now = files(name, synthesized)
    if request.config.getoption("--update-golden", default=False):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file, text in now.items():
            (folder / file).write_text(text)
    kept = {path.name: path.read_text() for path in folder.glob("*")}
    changes = [
        line
        for file in sorted(kept.keys() | now.keys())
        for line in difflib.unified_diff(
            kept.get(file, "").splitlines(),
            now.get(file, "").splitlines(),
            f"{name}/{file} as kept",
            f"{name}/{file} now",
            lineterm="",
        )
    ]
    if changes or kept != now:
        more = f"\n... and {len(changes) - _MOST_LINES} lines more" if len(changes) > _MOST_LINES else ""
        shown = "\n".join(changes[:_MOST_LINES])
        pytest.fail(f"{shown}{more}\n\nIf that is meant: make golden, and commit its diff.", pytrace=False)


def test_nothing_is_kept_of_examples_that_are_gone() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(EXAMPLES)


def test_what_changes_by_itself_is_not_kept_and_all_else_is(synthesized: Synthesize) -> None:
    packages = synthesized("production").stacks["packages"]
    moved = copy.deepcopy(packages)
    (bundle,) = moved["resource"]["google_storage_bucket_object"].values()
    bundle["name"] = bundle["name"].replace("0" * 64, "a" * 64)
    bundle["source"] = bundle["source"].replace("0" * 64, "a" * 64)
    bundle["//"] = {"metadata": {"version": "another"}}
    assert drawn(moved) == drawn(packages)
    bundle["content_type"] = "text/plain"
    assert drawn(moved) != drawn(packages)
