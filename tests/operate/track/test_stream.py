"""What trackers are told: every committed step once, in order, whatever happened, and from wherever they go on."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from crc32c import crc32c

from agent.store import Unavailable, open_store
from infra.local.bucket import RunRecords
from infra.operate.track.command import follow
from infra.operate.track.stream import Batch, Cursor, Row, Stream, flat
from infra.operate.track.tensorboard import cursor_of, file_of
from infra.operate.track.views import TensorBoardView, TrackerAway, identity_of
from tests.operate.track.history import History, at_random


def rows_of(stream: Stream, cursor: Cursor = Cursor(), **how: Any) -> list[Row]:  # noqa: B008 - frozen
    return [row for batch in stream.after(cursor, **how) for row in batch.rows]


@pytest.mark.parametrize("seed", range(4))
def test_each_committed_step_comes_once_in_order_and_with_what_the_bucket_says(tmp_path: Path, seed: int) -> None:
    store = open_store(f"file://{tmp_path}")
    at_random(store, seed, every=1 + seed % 3)
    truth = RunRecords(store).metrics()
    rows = rows_of(Stream(store))
    assert [row.step for row in rows] == [line["step"] for line in truth]
    assert [row.values["loss"] for row in rows] == [line["loss"] for line in truth]
    for batch in Stream(store).after(Cursor()):  # whoever stops here goes on with the rest
        rest = [row for row in rows if row.step >= batch.cursor.step]
        assert rows_of(Stream(store), batch.cursor) == rest
        known = rows_of(Stream(store), known=batch.cursor.step)  # one who knows by itself how far it was told
        assert [row for row in known if row.step >= batch.cursor.step] == rest


def test_preemptions_restores_spikes_and_checkpoints_are_marks(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}")
    history = History(store)
    history.begin()
    history.train(4)
    history.commit()
    history.train(3)  # lost
    history.begin("preempted")
    history.train(4)
    history.commit()
    history.train(1)
    history.commit()
    history.train(1)
    history.spike()  # at step 10: 8 is the newest that is surely good
    history.train(4)
    history.commit()
    marks = {
        row.step: {name: value for name, value in row.values.items() if name not in ("loss", "spot/attempt")}
        for row in rows_of(Stream(store))
    }
    assert {step: found for step, found in marks.items() if found} == {
        3: {"spot/checkpoint": 4},
        4: {"spot/restored_step": 4, "spot/preempted": 1},
        7: {"spot/checkpoint": 8},
        8: {"spot/checkpoint": 9},
        9: {"spot/restored_step": 8, "spot/back_to_step": 8, "spot/preempted": 1, "spot/spike": 1},
        11: {"spot/checkpoint": 12},
    }
    assert [row.values["spot/attempt"] for row in rows_of(Stream(store))] == [1] * 4 + [2] * 5 + [3] * 3


def test_a_lines_values_are_numbers_and_texts_by_name() -> None:
    line = {"step": 1, "time": "t", "loss": "NaN", "eval": {"a": 1, "b": [2, "x"]}, "gone": None, "note": "hi"}
    found = flat(line)
    assert math.isnan(float(found.pop("loss")))
    assert found == {"eval/a": 1, "eval/b/0": 2, "eval/b/1": "x", "note": "hi"}


class Flaky:
    """A tracker that is away when it is told to be."""

    def __init__(self, told: list[int], away: list[str]) -> None:
        self.told, self.away = told, away

    def begin(self) -> Cursor:
        self._fail("begin")
        return Cursor(step=max(self.told, default=-1) + 1)

    def send(self, batch: Batch) -> None:
        self._fail("send")
        self.told += [row.step for row in batch.rows]

    def close(self) -> None:
        self._fail("close")

    def _fail(self, what: str) -> None:
        if self.away[:1] == [what]:
            self.away.pop(0)
            raise TrackerAway(f"{what} failed")


def test_a_tracker_that_is_down_is_asked_again_and_misses_nothing(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}")
    history = at_random(store, 3)
    told: list[int] = []
    said: list[str] = []
    waited: list[float] = []

    def later(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 6:  # meanwhile the run goes on, and ends
            history.train(2)
            history.commit()
            history.finish()

    away = ["begin", "begin", "send", "close", "begin", "close", "close"]
    follow(Stream(store), lambda: Flaky(told, away), watch=True, every_s=7.0, say=said.append, sleep=later)
    assert told == [line["step"] for line in RunRecords(store).metrics()]
    assert (waited, len(said)) == ([5.0, 15.0, 60.0, 300.0, 7.0, 7.0, 5.0], 5)
    assert away == []
    with pytest.raises(TrackerAway):
        follow(Stream(store), lambda: Flaky([], ["send"]), watch=False, every_s=1, say=said.append)


def test_a_run_has_one_name_in_a_tracker_and_one_that_is_begun_anew_has_another(tmp_path: Path) -> None:
    names = set()
    for folder in ("one", "anew"):
        store = open_store(f"file://{tmp_path}/{folder}")
        history = History(store)
        history.begin()
        first = identity_of(store, "run")
        history.train(2)
        history.commit()
        history.begin()
        assert identity_of(store, "run") == first
        names.add(first)
    assert len(names) == 2


# --- TensorBoard's files ---


def scalars(content: bytes) -> Iterator[tuple[int, str, float]]:
    """Step, tag and value of each, read by hand: lengths, checksums and fields as the format's own text has them."""

    def masked(data: bytes) -> int:
        crc = crc32c(data)
        return int(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    def fields(data: bytes) -> Iterator[tuple[int, Any]]:
        at = 0

        def varint() -> int:
            nonlocal at
            value = shift = 0
            while True:
                byte = data[at]
                at += 1
                value |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    return value

        while at < len(data):
            number, kind = divmod(varint(), 8)
            size = {1: 8, 5: 4}.get(kind)
            if kind == 0:
                yield number, varint()
                continue
            size = varint() if size is None else size
            yield number, data[at : at + size]
            at += size

    while content:
        (length,) = struct.unpack("<Q", content[:8])
        event = content[12 : 12 + length]
        assert struct.unpack("<I", content[8:12]) == (masked(content[:8]),)
        assert struct.unpack("<I", content[12 + length : 16 + length]) == (masked(event),)
        found = dict(fields(event))
        for _, value in fields(found.get(5, b"")):
            one = dict(fields(value))
            yield found[2], one[1].decode(), struct.unpack("<f", one[2])[0]
        content = content[16 + length :]


def single(value: float) -> float:
    """As it is in 32 bits."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def by_hand(folder: Path) -> list[tuple[int, float]]:
    files = sorted(folder.glob("events.out.tfevents.*"))
    return [(step, value) for file in files for step, tag, value in scalars(file.read_bytes()) if tag == "loss"]


def by_tensorboard(folder: Path) -> list[tuple[int, float]]:
    pytest.importorskip("tensorboard", reason="TensorBoard's own reader is not installed: the files are read by hand")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return [(event.step, event.value) for event in found.Scalars("loss")]


@pytest.mark.parametrize("read", [by_hand, by_tensorboard])
def test_tensorboards_files_hold_each_step_once_whoever_wrote_which_part(
    tmp_path: Path, read: Callable[[Path], list[tuple[int, float]]]
) -> None:
    store, seen = open_store(f"file://{tmp_path}/run"), open_store(f"file://{tmp_path}/seen")
    history = at_random(store, 5)
    for more in (0, 3, 0, 2):  # told in several sittings, the run going on between
        if more:
            history.begin()
            history.train(more)
            history.commit()
        follow(Stream(store), lambda: TensorBoardView(seen, ""), watch=False, every_s=1, say=print)
    assert read(tmp_path / "seen") == [(line["step"], single(line["loss"])) for line in RunRecords(store).metrics()]


def test_an_event_files_name_says_where_its_reader_goes_on() -> None:
    cursor = Cursor(12, 340, 5, 300)
    name, _ = file_of(Batch([Row(339, {"loss": 1e60}, 0.0)], cursor, complete=False))
    assert cursor_of(name) == Cursor(12, 340, 5)
    assert cursor_of("events.out.tfevents.1700000000.host") is None


def test_a_bucket_that_is_away_is_no_end_of_the_watch(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}")
    history = at_random(store, 1)
    history.finish()
    told: list[int] = []

    class Away(Stream):
        first = True

        def after(self, cursor: Cursor, *, known: int = 0) -> Iterator[Batch]:
            if self.first:
                self.first = False
                raise Unavailable("503")
            return super().after(cursor, known=known)

    follow(Away(store), lambda: Flaky(told, []), watch=True, every_s=1, say=print, sleep=lambda _: None)
    assert told == [line["step"] for line in RunRecords(store).metrics()]


def test_a_watch_that_finds_all_told_and_the_run_complete_ends(tmp_path: Path) -> None:
    store, seen = open_store(f"file://{tmp_path}/run"), open_store(f"file://{tmp_path}/seen")
    history = at_random(store, 1)
    follow(Stream(store), lambda: TensorBoardView(seen, ""), watch=False, every_s=1, say=print)
    history.finish()

    class Done(TensorBoardView):
        def begin(self) -> Cursor:
            return list(Stream(store).after(Cursor()))[-1].cursor

    def never(_: float) -> None:
        raise AssertionError("it waits for what never comes")

    assert follow(Stream(store), lambda: Done(seen, ""), watch=True, every_s=1, say=print, sleep=never) == 0
