"""A trainer that prints for weeks fills neither memory nor disk."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from agent.trainer import process as supervisor
from agent.trainer.process import Trainer

LINES = 200_000


def test_output_that_was_told_takes_no_room_and_every_line_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = 1 << 18
    monkeypatch.setattr(supervisor, "_KEEP_BYTES", keep)
    told: list[str] = []

    async def scenario() -> Trainer:
        trainer = Trainer.hold(env=os.environ, cwd=tmp_path, log_file=tmp_path / "log")
        trainer.release(["seq", str(LINES)])
        await asyncio.wait_for(trainer.follow(told.append), 20)
        return trainer

    trainer = asyncio.run(scenario())
    assert told == [str(number) for number in range(1, LINES + 1)]
    there = (tmp_path / "log").stat()
    assert there.st_size == sum(len(line) + 1 for line in told)
    assert there.st_blocks * 512 <= 2 * keep + (64 << 10)
    assert trainer.last_lines(2) == [str(LINES - 1), str(LINES)]
