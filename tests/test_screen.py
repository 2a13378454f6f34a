"""What `spot run` shows: the trainer's output as it is, a bar that stays one on a terminal, whole lines in a pipe."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from infra.local.asked_to_stop import AskedToStop
from infra.local.screen import Screen, tell
from infra.local.vm import Event

LONG = "x" * 300


def event(name: str, level: str = "info", **values: Any) -> Event:
    return Event(0.0, 1, {"event": name, "level": level, **values})


def test_in_a_pipe_lines_are_whole_and_bare(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    screen = Screen(AskedToStop())
    screen.event(event("trainer_output", message=f"[bold]loss {LONG}"))
    screen.event(event("committed", reason="cadence", step=5, durable_s=0.31))
    screen.say(f"its bucket is {LONG}")
    assert capsysbinary.readouterr().out.decode().splitlines() == [
        f"[bold]loss {LONG}", "step 5 saved (0.3 s)", f"its bucket is {LONG}",
    ]  # fmt: skip


def test_on_a_terminal_a_bar_stays_a_bar_and_what_is_said_stands_above_it(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    log, next_log = tmp_path / "log", tmp_path / "next"
    log.write_bytes(b"begin\n 10%|#\r 20%|##\r")
    now = [log]
    screen = Screen(AskedToStop(), Console(force_terminal=True, soft_wrap=True, color_system=None))
    shown = b""

    def wait_for(end: bytes) -> None:
        nonlocal shown
        deadline = time.monotonic() + 10
        while not shown.endswith(end):
            assert time.monotonic() < deadline, shown
            time.sleep(0.01)
            shown += capsysbinary.readouterr().out

    with screen.following(lambda: now[0]):
        wait_for(b"begin\n 10%|#\r 20%|##\r")
        screen.event(event("trainer_output", message="20%"))  # the journal's words for it
        screen.say("step 5 saved")
        wait_for(b"\r\x1b[Kstep 5 saved\n 20%|##")
        next_log.write_bytes(b"again")
        now[0] = next_log
        wait_for(b"\nagain")
    wait_for(b"\nagain\n")


def test_warnings_stand_out_and_what_says_nothing_at_home_is_left_out() -> None:
    assert tell(event("save_failed", "warning", error="no room", step=1)) == ("[save_failed] no room", "yellow")
    assert tell(event("bucket_waits", "warning", error="503")) == ("bucket waits: 503", "yellow")
    assert tell(event("gave_up", "error", error="why")) == ("[gave_up] why", "bold red")
    assert tell(event("logind_absent", "warning", reason="none")) == tell(event("retired", objects=1)) == ("", "")


def test_what_a_program_saved_is_told_by_its_number_and_the_programs_own_step() -> None:
    told: dict[str, Any] = {"step": 3, "durable_s": 0.5, "attempt": 1}
    assert tell(event("committed", reason="cadence", **told)) == ("step 3 saved (0.5 s)", "green")
    own = event("committed", reason="cadence", program_step=120, **told)
    assert tell(own, "save") == ("save 3 (step 120) stored (0.5 s)", "green")
    assert tell(event("committed", reason="emergency", program_step=None, **told), "save")[0] == (
        "save 3 committed (emergency, 0.50 s)"
    )
    assert tell(event("fetched", step=3, source="bucket"), "save")[0] == "checkpoint of save 3 fetched from bucket"


def test_a_reader_that_goes_away_asks_to_stop_and_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    asked = AskedToStop()
    with os.fdopen(writer, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        screen = Screen(asked)
        screen.say("one")
        screen.event(event("trainer_output", message="two"))
    assert (asked.by, asked.status) == (signal.SIGPIPE, 141)
