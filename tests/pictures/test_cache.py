"""The cache keeps to its size, whoever writes; and reads are tried again when that may help."""

from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path

import pytest
from crc32c import crc32c

from agent.store import Forbidden, NotFound, StoreError, Unavailable
from workloads.pictures.batch import Image
from workloads.pictures.cache import Cache
from workloads.pictures.patience import Patience


def image(number: int, size: int = 1000) -> tuple[Image, bytes]:
    content = bytes([number % 256]) * size
    return Image(f"{number}.png", size, crc32c(content)), content


def taken(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*/*/*") if path.is_file())


def _fill(folder: Path, first: int) -> None:
    cache = Cache(folder, 20_000, "set")
    for number in range(first, first + 15):
        cache.put(*image(number))


def test_all_processes_together_keep_to_the_size_and_what_is_kept_stays(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    others = [fork.Process(target=_fill, args=(tmp_path, first)) for first in (0, 10, 20)]
    for other in others:
        other.start()
    for other in others:
        other.join(timeout=30)
    assert 16_000 <= taken(tmp_path) <= 20_000, "two may have had room for the same picture"
    cache = Cache(tmp_path, 20_000, "set")
    kept = [number for number in range(35) if cache.get(image(number)[0]) == image(number)[1]]
    assert len(kept) == taken(tmp_path) // 1000
    for number in range(100, 106):
        cache.put(*image(number))
    assert taken(tmp_path) == 20_000 and not cache.put(*image(99)) and cache.get(image(kept[0])[0]), (
        "none of its own makes room for another"
    )


def test_room_is_made_of_what_other_data_left_and_a_lower_bound_is_kept_to(tmp_path: Path) -> None:
    old, new = Cache(tmp_path, 20_000, "old"), Cache(tmp_path, 20_000, "new")
    assert all(old.put(*image(number)) for number in range(20))
    assert all(new.put(*image(number)) for number in range(12))
    assert taken(tmp_path) <= 20_000 and all(new.get(image(number)[0]) for number in range(12))
    assert 0 < sum(old.get(image(number)[0]) is not None for number in range(20)) <= 8
    Cache(tmp_path, 5_000, "new")
    assert taken(tmp_path) <= 5_000


def test_a_file_left_by_a_dead_writer_goes_and_is_counted_until_then(tmp_path: Path) -> None:
    Cache(tmp_path, 10_000, "set").put(*image(1))
    aside = next(tmp_path.glob("*/*/*")).with_name("dead.aside")
    aside.write_bytes(b"x" * 9_000)
    assert not Cache(tmp_path, 10_000, "set").put(*image(2))
    os.utime(aside, (0, 0))
    assert Cache(tmp_path, 10_000, "set").put(*image(2)) and not aside.exists()


def test_a_disk_that_can_not_be_written_is_told_once_and_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = Cache(tmp_path, 10_000, "set")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Cache, "_publish", full)
    assert not cache.put(*image(1)) and not cache.put(*image(2))
    assert not taken(tmp_path), "what was begun is taken back"
    assert capsys.readouterr().err.count("can't be written (No space left on device)") == 1


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (Unavailable("away"), 3),
        (OSError(errno.ESTALE, "stale"), 3),
        (FileNotFoundError(errno.ENOENT, "gone"), 1),
        (NotFound("gone"), 1),
        (Forbidden("no"), 1),
    ],
)
def test_only_what_may_pass_is_tried_again_with_pauses_that_grow_and_differ(error: Exception, tries: int) -> None:
    now, slept, asked = [0.0], [], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    def once(left: float) -> str:
        asked.append(left)
        if len(asked) < 3:
            raise error
        return "read"

    patience = Patience(timeout=10.0, clock=lambda: now[0], sleep=sleep, chance=lambda low, high: (low + high) / 2)
    if tries == 3:
        assert patience.read(once) == "read" and slept == pytest.approx([0.075, 0.15])
        asked.clear()
        with pytest.raises(type(error)):
            Patience(timeout=0.01, clock=lambda: now[0], sleep=sleep).read(once)
        return
    with pytest.raises((StoreError, OSError)) as caught:
        patience.read(once)
    assert caught.value is error and len(asked) == 1 and not slept
