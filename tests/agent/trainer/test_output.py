"""Whatever a trainer prints: its lines are told, what is too much is counted, and it fills neither memory nor disk."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.trainer import output as module
from agent.trainer.output import LONGEST_LINE, Output, last_lines


class Followed:
    """A trainer's log, and what is told of it. `clock` only goes on by hand."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "trainer.log"
        self.path.touch()
        self.now = 0.0
        self.told: list[str] = []
        self.output = self.follow()
        self.file = self.path.open("rb")

    def follow(self, *, adopted: bool = False) -> Output:
        return Output(self.path, adopted=adopted, tell=self.told.append, clock=lambda: self.now)

    def prints(self, data: bytes, *, after: float = 0.25, last: bool = False) -> list[str]:
        """What is told once `data` is there too."""
        with self.path.open("ab") as log:
            log.write(data)
        self.now += after
        before = len(self.told)
        self.output.read(self.file.fileno(), last=last)
        return self.told[before:]


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[Followed]:
    followed = Followed(tmp_path)
    with followed.file:
        yield followed


def test_each_line_is_told_once_and_one_without_an_end_at_the_end(trainer: Followed) -> None:
    assert trainer.prints(b"one\r\ntw") == ["one"]
    assert trainer.prints(b"o\n\nthr") == ["two", ""]
    assert trainer.prints(b"", last=True) == ["thr"]


def test_of_a_progress_bar_the_last_state_is_told_and_a_passing_one_now_and_then(trainer: Followed) -> None:
    told = [line for step in range(400) for line in trainer.prints(b"\r%d %%" % (step // 4))]
    assert 9 <= len(told) <= 11  # 100 s
    assert trainer.prints(b"\r100 %\nloss 2.5\n") == ["100 %", "loss 2.5"]


def test_a_progress_bar_of_a_day_is_read_in_little_memory(trainer: Followed) -> None:
    tracemalloc.start()
    with capture_logs() as logs:
        trainer.prints(b"\r 41 %" * 1_500_000 + b"\r 42 %", last=True)
    assert trainer.told == [" 42 %"]
    assert tracemalloc.get_traced_memory()[1] < 64 << 20, "what the test itself holds, and little more"
    tracemalloc.stop()
    assert [entry["event"] for entry in logs] == ["output_dropped"]


def test_a_line_without_end_is_told_cut_and_the_rest_of_it_is_counted(trainer: Followed) -> None:
    with capture_logs() as logs:
        (cut,) = trainer.prints(b"x" * (LONGEST_LINE + 1))
        assert cut.startswith("x" * LONGEST_LINE + " [cut")
        for _ in range(20):
            assert trainer.prints(b"x" * 1_000_000) == []
        assert trainer.prints(b"x\nafter\n", last=True) == ["after"]
    assert sum(entry["bytes"] for entry in logs) == 20_000_000 + 1 + 2


def test_of_a_flood_the_newest_lines_are_told_and_every_other_is_counted(trainer: Followed) -> None:
    lines = [f"{number}" for number in range(1_000_000)]
    with capture_logs() as logs:
        for second in range(10):
            part = lines[second * 100_000 : (second + 1) * 100_000]
            trainer.prints("".join(f"{line}\n" for line in part).encode(), after=1.0)
        trainer.prints(b"", last=True)
    assert trainer.told[-1] == lines[-1]
    assert len(set(trainer.told)) == len(trainer.told) <= module._LINES_AT_ONCE + 10 * module._LINES_PER_S
    assert len(trainer.told) + sum(entry["lines"] for entry in logs) == len(lines)


def test_last_words_are_told_whatever_was_printed_before(trainer: Followed) -> None:
    for _ in range(40):
        trainer.prints(b"noise\n" * 50_000)
    told = trainer.prints(b"noise\n" * 50_000 + b"Traceback:\n  RuntimeError: no\n", last=True)
    assert told[-2:] == ["Traceback:", "  RuntimeError: no"]


def test_who_adopts_a_trainer_goes_on_where_the_agent_before_ended(trainer: Followed) -> None:
    assert trainer.prints(b"one\ntw") == ["one"]
    trainer.output = trainer.follow(adopted=True)
    assert trainer.prints(b"o\n") == ["two"]


def test_a_new_trainers_lines_are_told_from_the_first_even_if_its_agent_dies_at_once(trainer: Followed) -> None:
    trainer.prints(b"of the trainer before\n")
    trainer.path.write_bytes(b"")
    trainer.follow()  # the agent that started it
    trainer.output = trainer.follow(adopted=True)
    assert trainer.prints(b"first line of the new one\n") == ["first line of the new one"]


def test_output_that_was_told_takes_no_room(trainer: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEEP_BYTES", 1 << 18)
    for _ in range(20):
        trainer.prints(b"no end " * 40_000)
    there = trainer.path.stat()
    assert there.st_size == 20 * 280_000
    assert there.st_blocks * 512 <= (2 << 18) + 280_000 + (64 << 10)


def test_last_lines_are_as_a_terminal_shows_them(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"\r".join(b"%d %%" % number for number in range(5000)) + b"\nTraceback\nboom")
    assert last_lines(tmp_path / "log", 3) == ["4999 %", "Traceback", "boom"]
