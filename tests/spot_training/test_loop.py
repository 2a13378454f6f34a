"""What is read off a training loop: every fault of a set of loops by its name, and nothing against the good ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from spot_training.loop import Finding, findings

from tests.spot_training.loops import BEFORE, FAULTS, GOOD


class Found(Exception):
    pass


class Session:
    """Stands in for the session, which asks at its first boundary: the loop is not run."""

    def track(self, **tracked: Any) -> int:
        self.tracked = tracked
        return 0

    def steps(self, _: int) -> Session:
        return self

    def log(self, **_: Any) -> None: ...

    def __iter__(self) -> Session:
        return self

    def __next__(self) -> int:
        raise Found(findings(sys._getframe(1), self.tracked))


Session.__module__ = "spot_training.session"


def found_in(loop: str, folder: Path) -> list[Finding]:
    file = folder / "train.py"
    file.write_text(BEFORE + loop)
    with pytest.raises(Found) as caught:
        exec(compile(file.read_text(), str(file), "exec"), {"__name__": "__main__", "session": Session()})
    found: list[Finding] = caught.value.args[0]
    return found


@pytest.fixture(autouse=True)
def read_without_trouble(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert not caplog.records


@pytest.mark.parametrize("name", FAULTS)
def test_a_loop_that_would_not_resume_exactly_is_told_what_it_carries(name: str, tmp_path: Path) -> None:
    loop, expected = FAULTS[name]
    found = found_in(loop, tmp_path)
    assert expected <= {f"{one.kind} {one.name}" for one in found} <= expected | {"carried Y"}
    lines = (BEFORE + loop).splitlines()
    for one in found:
        assert one.file == "train.py" and f"(train.py:{one.line})" in one.what
        last = one.name.replace("]", "").replace("[", ".").replace("'", "").split(".")[-1]
        assert last.isdigit() or last in lines[one.line - 1] or one.name.split(".")[0] in lines[one.line - 1]


@pytest.mark.parametrize("name", GOOD)
def test_nothing_is_said_against_a_good_loop(name: str, tmp_path: Path) -> None:
    assert [one.what for one in found_in(GOOD[name], tmp_path)] == []


def test_what_is_said_names_the_line_and_the_fix(tmp_path: Path) -> None:
    (one,) = found_in(FAULTS["best"][0], tmp_path)
    assert one.what == (
        f"`best` (train.py:{one.line}) carries over from one step to the next and is not tracked: after a resume it "
        'begins anew. Keep it in a tracked dict: state = {"best": ...}; session.track(state=state)'
    )
    assert one.surely


def test_a_loop_without_source_has_no_findings() -> None:
    with pytest.raises(Found) as caught:
        exec("best = 1\nsession.track()\nfor step in session.steps(3):\n    best += 1", {"session": Session()})
    assert caught.value.args[0] == []
