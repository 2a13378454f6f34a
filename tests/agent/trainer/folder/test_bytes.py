"""A folder's bytes: whatever is in it comes back, nothing torn is called whole, and what did not change is not sent."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from agent.checkpoint.bucket import Checkpoints
from agent.checkpoint.restore import RestoreError
from agent.store import open_store
from agent.telemetry.ledger import Resume
from agent.trainer.folder import aside, blocks
from agent.trainer.folder.begin import begin_folder
from agent.trainer.folder.scan import FolderError, scan_folder
from agent.trainer.restarts import DISK
from tests.agent.checkpoint.saving import PATIENCE_S, RUN, saving
from tests.agent.stores import Watched
from tests.agent.trainer.folder.test_folder import bring_back, picture, save, steps

MB = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    return Watched(open_store(f"file://{tmp_path}/bucket"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two large files, one that lies in several parts, and small ones."""
    folder = tmp_path / "saves"
    (folder / "deep").mkdir(parents=True)
    (folder / "large").write_bytes(os.urandom(2 * MB))
    (folder / "larger").write_bytes(os.urandom(9 * MB))
    for number in range(5):
        (folder / "deep" / str(number)).write_bytes(os.urandom(1000))
    return folder


def sent(said: list[Any]) -> list[int]:
    """Bytes that each save sent."""
    return [event["sent"] for event in said if event["event"] == "committed"]


# --- what comes back ---

_NAMES = st.binary(min_size=1, max_size=6).map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_")).filter(
    lambda raw: raw not in (b".", b"..") and not raw.endswith((b".tmp", b"~"))
)  # fmt: skip
_KINDS = st.sampled_from(["file", "hole", "folder", "link", "second name", "shut"])
_THINGS = st.lists(st.tuples(_NAMES, _KINDS, st.integers(0, 3000), st.integers(0, 10**15)), min_size=1, max_size=12)


def build(top: Path, things: list[tuple[bytes, str, int, int]]) -> None:
    """A folder of them, one below the other where there is a folder."""
    here, made = os.fsencode(top), list[bytes]()
    for name, kind, size, when in things:
        path = os.path.join(here, name)
        if os.path.lexists(path):
            continue
        if kind == "folder":
            os.mkdir(path)
            here = path
        elif kind == "link":
            os.symlink(os.path.basename(made[-1]) if made and os.path.dirname(made[-1]) == here else b"nowhere", path)
        elif kind == "second name" and made:
            os.link(made[-1], path)
        else:
            with open(path, "wb") as out:
                if kind == "hole":
                    out.truncate(3 * MB)
                    out.seek(MB + size)
                out.write(os.urandom(size))
            os.chmod(path, 0o400 if kind == "shut" else 0o640)
            if os.geteuid() == 0:
                os.chown(path, size, 7)
            os.utime(path, ns=(when, when))
            made.append(path)


@pytest.mark.slow
@settings(
    max_examples=20, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), derandomize=True
)
@given(first=_THINGS, then=_THINGS)
def test_whatever_a_folder_holds_comes_back_and_so_does_what_it_holds_later(first: Any, then: Any) -> None:
    with tempfile.TemporaryDirectory() as room:
        top = Path(room) / "saves"
        top.mkdir()
        (top / "weights").write_bytes(os.urandom(MB + 5))
        build(top, first)
        store = Watched(open_store(f"file://{room}/bucket"))
        assert save(store, top, lambda: build(top, then))[0] == "staged"
        before = picture(top)
        bring_back(store, Path(room) / "back")
        assert picture(Path(room) / "back") == before


@pytest.mark.slow
def test_a_file_with_holes_takes_no_more_room_than_its_content(store: Watched, tmp_path: Path) -> None:
    folder = tmp_path / "saves"
    folder.mkdir()
    with (folder / "sparse").open("wb") as out:
        out.write(os.urandom(MB))
        out.seek(60 * MB)
        out.write(os.urandom(MB))
        out.truncate(100 * MB)
    with capture_logs() as said:
        save(store, folder)
    assert sent(said)[0] < 4 * MB
    bring_back(store, tmp_path / "back")
    assert (tmp_path / "back" / "sparse").read_bytes() == (folder / "sparse").read_bytes()
    assert (tmp_path / "back" / "sparse").stat().st_blocks * 512 < 4 * MB


# --- what is sent ---


def test_what_did_not_change_is_not_sent_again_and_outlives_the_checkpoint_it_came_with(
    store: Watched, folder: Path, tmp_path: Path
) -> None:
    """The saver keeps four, so that the first one goes, whose objects they refer to."""

    pictures: list[dict[str, Any]] = []

    def change(name: str, size: int) -> Callable[[], object]:
        def write() -> None:
            pictures.append(picture(folder))
            (folder / name).write_bytes(os.urandom(size))

        return write

    small = [change("deep/0", 900 + number) for number in range(4)]
    with capture_logs() as said:
        assert save(store, folder, *small[:2], change("large", MB), *small[2:], keep=4) == ["staged"] * 6
    assert steps(store) == [6, 5, 4, 3]
    first, *later = sent(said)
    assert (first > 11 * MB, later[2] > MB) == (True, True)
    assert max(*later[:2], *later[3:]) < 5000, "one small file, and the list of them"
    assert not [name for name in store.names("rolling/") if f"/{2:012d}-" in name], "what nobody refers to is gone"
    bring_back(store, tmp_path / "back")
    assert picture(tmp_path / "back") == picture(folder)
    bring_back(store, tmp_path / "older", passed_over=[f"rolling/{step:012d}-{1:05d}" for step in (6, 5, 4)])
    assert picture(tmp_path / "older") == pictures[2], "with what no newer one refers to any more"


def test_a_program_that_replaces_or_deletes_what_is_being_saved_disturbs_nothing(
    store: Watched, folder: Path, tmp_path: Path
) -> None:
    before = picture(folder)

    def interfere(operation: str, name: str) -> None:
        if name.endswith(".bin"):
            store.before = lambda *_: None
            (folder / "new").write_bytes(b"new")
            (folder / "new").replace(folder / "large")
            (folder / "larger").unlink()
            (folder / "deep" / "1").write_bytes(b"other")

    store.before = interfere
    assert save(store, folder) == ["staged"]
    bring_back(store, tmp_path / "back")
    assert picture(tmp_path / "back") == before


def test_a_file_that_is_written_to_in_place_while_it_is_sent_is_held_again_as_a_copy_and_nothing_torn_is_whole(
    store: Watched, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aside, "clone", lambda source, into: False)  # as on ext4
    copied: list[str] = []

    def noted(source: int, into: int, path: str, size: int) -> None:
        copied.append(path)
        blocks.copy(source, into, path, size)

    monkeypatch.setattr(aside, "copy", noted)
    times = 0

    def interfere(operation: str, name: str) -> None:
        nonlocal times
        if name.endswith(".bin") and times < 3:  # at the first of its parts, and then when it is a copy
            times += 1
            with (folder / "larger").open("r+b") as out:
                out.seek(8 * MB)
                out.write(os.urandom(100))

    store.before = interfere
    with capture_logs() as said:
        assert save(store, folder) == ["staged"]
    assert "folder_torn" in [event["event"] for event in said]
    assert copied == [str(folder / "larger")]
    assert steps(store) == [1]
    bring_back(store, tmp_path / "back")
    assert len((tmp_path / "back" / "larger").read_bytes()) == 9 * MB


# --- what a program begins with ---


def begin(store: Watched, folder: Path, *, claimant: str = "us", passed_over: set[str] | None = None) -> Resume:
    """A new attempt's folder, on a VM's boot called `claimant`."""

    async def scenario() -> Resume:
        async with saving(store, claimant=claimant, attempt=0) as toy:
            attempt = await asyncio.to_thread(toy.saver.claim, facts={}, timeout=PATIENCE_S)
            workload = SimpleNamespace(checkpoint_dir=str(folder))
            host = SimpleNamespace(
                run=SimpleNamespace(workload=workload, run_id=RUN), saver=toy.saver, state_dir=folder.parent
            )
            resume = Resume(RUN, attempt, "vm", 0.0)
            await begin_folder(cast(Any, host), resume, passed_over=passed_over or set())
            return resume

    return asyncio.run(scenario())


def put_aside(folder: Path) -> list[Path]:
    return sorted(folder.parent.glob(f"{folder.name}.put-aside-*"))


def test_after_a_crash_the_folder_goes_on_from_itself_and_an_untouched_one_is_the_checkpoint(
    store: Watched, folder: Path
) -> None:
    assert save(store, folder) == ["staged"]
    same = begin(store, folder)
    assert (same.source, same.folder, same.step) == ("disk", Checkpoints(store, RUN).entries(timeout=5)[0].folder, 1)
    (folder / "newer").write_text("the bucket lacks it")
    again = begin(store, folder)
    assert (again.source, again.folder, again.step) == ("disk", DISK, 1)
    assert (folder / "newer").exists()


def test_after_a_reboot_what_is_newer_stays_and_what_is_not_comes_from_the_bucket(store: Watched, folder: Path) -> None:
    """A power cut may have cost the disk what it had not written yet: what the bucket has is surer."""
    save(store, folder)
    assert begin(store, folder, claimant="the next boot").source == "bucket"
    assert put_aside(folder) == []
    (folder / "newer").write_text("the bucket lacks it")
    assert begin(store, folder, claimant="one more boot").source == "disk"


@pytest.mark.slow
def test_where_another_vm_has_gone_on_what_the_bucket_lacks_is_put_aside_and_no_more_than_two_of_these_stay(
    store: Watched, folder: Path, tmp_path: Path
) -> None:
    save(store, folder)
    elsewhere = tmp_path / "another vm" / "saves"
    for number in range(3):
        begin(store, elsewhere, claimant=f"another {number}")
        (elsewhere / "theirs").write_text(f"{number}")
        assert save(store, elsewhere) == ["staged"]
        (folder / "mine").write_text(f"{number}")
        with capture_logs() as said:
            assert begin(store, folder, claimant=f"us {number}").source == "bucket"
        assert "folder_put_aside" in [event["event"] for event in said]
        assert picture(folder) == picture(elsewhere)
    assert [(old / "mine").read_text() for old in put_aside(folder)] == ["1", "2"]


@pytest.mark.slow
def test_a_state_that_fails_each_time_is_passed_over_disk_first_and_what_was_there_is_put_aside(
    store: Watched, folder: Path
) -> None:
    save(store, folder, lambda: (folder / "second").write_text("2"))
    newest, older = Checkpoints(store, RUN).entries(timeout=5)
    (folder / "half").write_text("torn")
    first = begin(store, folder, passed_over={DISK})
    assert (first.source, first.folder) == ("bucket", newest.folder)
    assert [(old / "half").read_text() for old in put_aside(folder)] == ["torn"]
    (folder / "litter").write_text("of a try that failed")
    assert begin(store, folder, passed_over={DISK}).folder == newest.folder
    second = begin(store, folder, passed_over={DISK, newest.folder})
    assert (second.folder, second.step) == (older.folder, 1)
    assert not (folder / "second").exists()
    assert len(put_aside(folder)) == 1, "what a failing try leaves is worth nothing"


def test_a_checkpoint_of_a_session_is_refused_by_name(store: Watched, folder: Path) -> None:
    async def scenario() -> None:
        async with saving(store) as toy:
            await toy.save(4)

    asyncio.run(scenario())
    (folder / "mine").write_text("mine")
    with pytest.raises(RestoreError, match=r"(?s)a kind with a session.*kind command.*run_id"):
        begin(store, folder)
    assert (folder / "mine").exists()


# --- being killed, a full disk ---

_KILLED = """
import os, sys
from pathlib import Path
from agent.checkpoint.bucket import Checkpoints
from agent.checkpoint.restore import find_newest
from agent.store import open_store
from agent.trainer.folder import place, put_back
at = sys.argv[3]
def die(*_, **__): os.kill(os.getpid(), 9)
if at == "while parts are written": put_back._write = die
elif at == "before the exchange": place.Place.exchange = die
else:
    rename = Path.rename
    def once(self, to):
        rename(self, to)
        die()
    Path.rename = once
store = open_store(sys.argv[1])
folder = Path(sys.argv[2])
bring = lambda manifest, timeout: put_back.put_back(store, manifest, folder, news=True, connections=2, timeout=timeout)
find_newest(Checkpoints(store, "run"), bring, layout="folder", timeout=20.0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("at", ["while parts are written", "before the exchange", "amid the exchange"])
def test_a_restore_that_is_killed_loses_nothing_and_the_next_one_is_whole(
    store: Watched, folder: Path, tmp_path: Path, at: str
) -> None:
    save(store, folder)
    before = picture(folder)
    (folder / "mine").write_text("the bucket lacks it")
    done = subprocess.run([sys.executable, "-c", _KILLED, store.url, str(folder), at], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len([*tmp_path.rglob("mine")]) == 1, "in its place, or put aside"
    bring_back(store, folder)
    assert picture(folder) == before
    assert not [*tmp_path.glob("saves.restoring"), *tmp_path.glob("saves.replaced")]


_SAVE_KILLED = """
import os, sys
from pathlib import Path
from agent.store import open_store
from tests.agent.stores import Watched
from tests.agent.trainer.folder.test_folder import save
store, at = Watched(open_store(sys.argv[1])), sys.argv[3]
kind = type(open_store(sys.argv[1]))
create = kind.create
def die_at(self, name, *given, **named):
    if at in name and not (at == "line/" and not named_before):
        os.kill(os.getpid(), 9)
    named_before.append(name) if "manifest" in name else None
    return create(self, name, *given, **named)
named_before = []
kind.create = die_at
save(store, Path(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("at", ["part-00001", "manifest.json", "line/"])
def test_a_save_that_is_killed_is_none_and_the_next_one_is_whole(
    store: Watched, folder: Path, tmp_path: Path, at: str
) -> None:
    save(store, folder)
    before = picture(folder)
    for file in ("large", "larger", "deep/0"):
        (folder / file).write_bytes(os.urandom(2 * MB))
    done = subprocess.run([sys.executable, "-c", _SAVE_KILLED, store.url, str(folder), at], check=False)
    assert done.returncode == -signal.SIGKILL
    bring_back(store, tmp_path / "another disk" / "saves")
    assert picture(tmp_path / "another disk" / "saves") == before
    assert save(store, folder) == ["staged"]
    bring_back(store, tmp_path / "a third disk" / "saves")
    assert picture(tmp_path / "a third disk" / "saves") == picture(folder)


def test_a_disk_without_room_is_named_with_what_is_needed_and_keeps_what_it_has(
    store: Watched, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store, folder)
    (folder / "mine").write_text("mine")
    disk = os.statvfs(folder)
    full = os.statvfs_result((*disk[:3], 1000, 1000, *disk[5:]))
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    with pytest.raises(FolderError, match=rf"needs 11,[0-9,]+ bytes.*{folder}.*free .* bytes there"):
        bring_back(store, folder)
    assert (folder / "mine").exists()


def test_what_is_ours_beside_the_folder_is_not_in_it(store: Watched, folder: Path) -> None:
    save(store, folder)
    assert (folder.parent / ".saves.spot.json").exists()
    assert not [entry for entry in scan_folder(folder) if "spot" in entry.path]
