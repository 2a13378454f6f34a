"""A program's folder: committed as it stood at one moment, and brought back as it was."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from spot_training.protocol.messages import SaveAnswer, Staged

from agent.checkpoint.bucket import Checkpoints
from agent.checkpoint.manifest import Manifest
from agent.checkpoint.restore import find_newest
from agent.store import open_store
from agent.trainer.folder.link import FolderLink
from agent.trainer.folder.put_back import put_back
from agent.trainer.folder.scan import FolderError
from agent.trainer.folder.snapshot import Snapshot
from tests.agent.checkpoint.saving import PATIENCE_S, RUN, Toy, saving
from tests.agent.stores import Watched
from tests.agent.trainer.folder.manifests import first_format


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    return Watched(open_store(f"file://{tmp_path}/bucket"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What programs leave: weights, a link to the newest, a script, a private file, places for later."""
    folder = tmp_path / "saves"
    (folder / "step-1" / "empty").mkdir(parents=True)
    (folder / "step-1" / "weights").write_bytes(os.urandom(100_000))
    (folder / "nothing").touch()
    (folder / "run.sh").write_text("#!/bin/sh")
    (folder / "run.sh").chmod(0o755)
    (folder / "key").write_text("x")
    (folder / "key").chmod(0o400)
    (folder / "closed").mkdir()
    (folder / "closed" / "log").write_text("y")
    (folder / "closed").chmod(0o500)
    (folder / "latest").symlink_to("step-1")
    (folder / "step-1" / "last").symlink_to(folder / "step-1" / "weights")
    (folder / "not yet").symlink_to("step-2")
    os.mkfifo(folder / "pipe")
    return folder


def picture(folder: Path) -> dict[str, Any]:
    """All that a program could see of it, but pipes."""
    seen: dict[str, Any] = {}
    names: dict[int, str] = {}
    for path in sorted([folder, *folder.rglob("*")], key=bytes):
        at = path.relative_to(folder).as_posix()
        info = path.lstat()
        seen[at] = (info.st_uid, info.st_gid)
        if path != folder:
            seen[at] += (info.st_mtime_ns,)
        if path.is_symlink():
            target = (path.parent.resolve() / path.readlink()).resolve()
            seen[at] += (target.relative_to(folder.resolve()).as_posix(),)
        elif path.is_dir():
            seen[at] += (info.st_mode & 0o3777,)
        elif path.is_file():
            seen[at] += (info.st_mode & 0o777, path.read_bytes(), names.setdefault(info.st_ino, at))
        else:
            del seen[at]
    return seen


@asynccontextmanager
async def linked(
    store: Watched,
    folder: Path,
    on_saved: Callable[[int, float], None] = lambda step, age_s: None,
    keep: int = 2,
) -> AsyncIterator[tuple[Toy, FolderLink]]:
    """A program that has ended, its folder, and the saver that its link is to."""
    async with saving(store, keep=keep) as toy:
        workload = SimpleNamespace(checkpoint_dir=str(folder), notice_signal="SIGUSR1", complete_when=None)
        host = SimpleNamespace(
            run=SimpleNamespace(workload=workload, run_id=RUN), saver=toy.saver, state_dir=folder.parent
        )
        ended = SimpleNamespace(running=False)
        link = FolderLink(cast(Any, host), cast(Any, ended), on_saved)

        async def on_commit(index: int, staged: Staged) -> None:
            await link.committed(index, staged.step)

        async def on_failure(index: int, staged: Staged, error: Exception) -> None:
            await link.abandoned(index, staged.step, str(error))

        toy.saver.on_commit, toy.saver.on_failure = on_commit, on_failure
        yield toy, link


def save(
    store: Watched,
    folder: Path,
    *between: Callable[[], object],
    on_saved: Callable[[int, float], None] = lambda step, age_s: None,
    keep: int = 2,
) -> list[SaveAnswer]:
    """A save, and one more after each of `between`."""

    async def scenario() -> list[SaveAnswer]:
        async with linked(store, folder, on_saved, keep) as (toy, link):
            answers = [await link.save("cadence", deadline=None, timeout=PATIENCE_S)]
            for change in between:
                await toy.saver.settle(timeout=PATIENCE_S)
                change()
                answers.append(await link.save("cadence", deadline=None, timeout=PATIENCE_S))
            return answers

    return asyncio.run(scenario())


def bring_back(store: Watched, folder: Path, *, passed_over: Collection[str] = ()) -> None:
    checkpoints = Checkpoints(store, RUN)

    def bring(manifest: Manifest, timeout: float) -> object:
        return put_back(store, manifest, folder, news=False, connections=4, timeout=timeout)

    found = find_newest(checkpoints, bring, layout="folder", timeout=PATIENCE_S, passed_over=passed_over)
    assert found
    assert len(found.bad) == len(passed_over)


def steps(store: Watched) -> list[int]:
    return [entry.step for entry in Checkpoints(store, RUN).entries(timeout=PATIENCE_S)]


def test_a_folder_comes_back_whole_with_its_links_modes_and_empty_folders(
    store: Watched, folder: Path, tmp_path: Path
) -> None:
    before = picture(folder)
    assert save(store, folder) == ["staged"]
    back = tmp_path / "another disk" / "saves"
    bring_back(store, back)
    assert picture(back) == before
    assert [path.name for path in back.parent.iterdir()] == ["saves"]


def test_a_link_to_a_file_elsewhere_comes_back_as_that_file(store: Watched, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("z")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    save(store, folder)
    (tmp_path / "elsewhere").unlink()
    bring_back(store, tmp_path / "back")
    assert (tmp_path / "back" / "linked").read_text() == "z"


def test_what_was_there_before_is_replaced_not_mixed_with(store: Watched, folder: Path, tmp_path: Path) -> None:
    save(store, folder)
    before = picture(folder)
    (folder / "half a save").write_text("torn")
    (folder / "nothing").write_text("torn")
    for litter in ("saves.restoring", "saves.replaced"):  # of an agent that was killed amid this
        (tmp_path / litter / "old").mkdir(parents=True)
    bring_back(store, folder)
    assert picture(folder) == before
    assert not list(tmp_path.glob("saves.*"))


def test_a_folder_that_is_a_link_to_another_disk_stays_one(store: Watched, folder: Path, tmp_path: Path) -> None:
    save(store, folder)
    before = picture(folder)
    (tmp_path / "disk" / "real").mkdir(parents=True)
    (tmp_path / "linked").symlink_to(tmp_path / "disk" / "real")
    for _ in range(2):
        bring_back(store, tmp_path / "linked")
        assert (tmp_path / "linked").is_symlink()
        assert picture(tmp_path / "disk" / "real") == before


_ON_A_DISK_OF_ITS_OWN = """
import os, sys
from pathlib import Path
from agent.store import open_store
from agent.trainer.folder.put_back import put_back
from agent.trainer.folder.scan import scan_folder
from tests.agent.trainer.folder.manifests import first_format
disk, bucket = Path(sys.argv[1]), Path(sys.argv[2])
(disk / "lost+found").mkdir()
(disk / "half a save").mkdir()
(disk / ".spot-restoring").mkdir()  # of an agent that was killed amid this
store = open_store(f"file://{bucket}")
manifest = first_format(store, b"abcd", [
    {"path": "closed", "kind": "folder", "mode": 0o500},
    {"path": "closed/weights", "mode": 0o600, "size": 4, "offset": 0},
    {"path": "latest", "kind": "link", "mode": 0, "target": "closed/weights"},
])
for news in (False, True, False):
    put_back(store, manifest, disk, news=news, connections=1, timeout=9.0)
    assert os.path.ismount(disk)
    seen = [name for name in sorted(os.listdir(disk)) if not name.startswith(".spot-put-aside-")]
    assert seen == ["closed", "latest", "lost+found"], seen
    assert (disk / "latest").read_bytes() == b"abcd"
    assert (disk / "closed").stat().st_mode & 0o777 == 0o500
    assert [entry.path for entry in scan_folder(disk)] == [".", "closed", "latest", "closed/weights"]
(kept,) = disk.glob(".spot-put-aside-*")
assert (kept / "closed" / "weights").read_bytes() == b"abcd"
"""


def test_a_folder_that_is_a_disk_of_its_own_is_refilled_and_the_disks_own_folder_left_alone(tmp_path: Path) -> None:
    alone = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount anything, not even in a namespace of their own")
    (tmp_path / "disk").mkdir()
    script = f'mount -t tmpfs disk {tmp_path}/disk && exec {sys.executable} -c "$1" {tmp_path}/disk {tmp_path}/bucket'
    done = subprocess.run(
        [*alone, "sh", "-ec", script, "sh", _ON_A_DISK_OF_ITS_OWN], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def changing(folder: Path, change: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """The program goes on writing just after its folder was copied, before anybody could look again."""
    from agent.trainer.folder import aside, link

    copy = aside.take

    def take_and_change(*arguments: Any, **more: Any) -> Snapshot:
        taken = copy(*arguments, **more)
        change(folder)
        return taken

    monkeypatch.setattr(link, "take", take_and_change)


CHANGES: dict[str, Callable[[Path], object]] = {
    "a file written again": lambda folder: (folder / "step-1" / "weights").write_bytes(os.urandom(100_000)),
    "a file that grew": lambda folder: (folder / "nothing").write_text("more"),
    "a new file": lambda folder: (folder / "new").touch(),
    "a file gone": lambda folder: (folder / "nothing").unlink(),
    "a link turned": lambda folder: (folder / "not yet").replace(folder / "latest"),
    "a new folder": lambda folder: (folder / "step-2").mkdir(),
    "a mode": lambda folder: (folder / "run.sh").chmod(0o600),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_folder_that_changes_while_it_is_held_is_not_committed_but_held_again(
    store: Watched, folder: Path, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    left = [change]
    with pytest.MonkeyPatch.context() as patch:
        changing(folder, lambda at: left and left.pop()(at), patch)
        assert save(store, folder) == ["staged"]
    assert steps(store) == [1]
    bring_back(store, tmp_path / "back")
    assert picture(tmp_path / "back") == picture(folder)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_only_what_changed_is_saved_again(store: Watched, folder: Path, change: Callable[[Path], object]) -> None:
    assert save(store, folder, lambda: None, lambda: change(folder)) == ["staged", "unchanged", "staged"]
    assert steps(store) == [2, 1]


def test_what_was_saved_is_as_old_as_its_newest_file_not_as_the_copy_of_it(store: Watched, tmp_path: Path) -> None:
    folder, ages = tmp_path / "program", list[float]()
    folder.mkdir()
    for name, age_s in (("older", 90.0), ("newest", 30.0)):
        (folder / name).write_text(name)
        os.utime(folder / name, (time.time() - age_s,) * 2)
    assert save(store, folder, on_saved=lambda step, age_s: ages.append(age_s)) == ["staged"]
    assert 30.0 <= ages[0] < 60.0


@pytest.mark.parametrize("when", ["cut short while it is read", "gone before it is read"])
def test_a_file_that_shrinks_under_our_hands_is_no_checkpoint(
    store: Watched, folder: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.trainer.folder import aside, link

    copy = aside.take

    def change_and_take(*arguments: Any, **more: Any) -> Snapshot:
        weights = folder / "step-1" / "weights"
        weights.unlink() if when.startswith("gone") else os.truncate(weights, 10)
        return copy(*arguments, **more)

    monkeypatch.setattr(link, "take", change_and_take)
    assert save(store, folder) == ["none"]
    assert steps(store) == []


def test_a_folder_without_a_file_is_no_checkpoint(store: Watched, tmp_path: Path) -> None:
    assert save(store, tmp_path / "nowhere") == ["unchanged"]
    (tmp_path / "saves" / "empty").mkdir(parents=True)
    assert save(store, tmp_path / "saves") == ["unchanged"]


def entry(path: str, **changes: Any) -> dict[str, Any]:
    return {"path": path, "kind": "file", "mode": 0o644, "size": 4, "offset": 0, "target": ""} | changes


@pytest.mark.parametrize(
    "files",
    [
        [entry("../out")],
        [entry("/tmp/spot-out")],
        [entry("up", kind="link", target=".."), entry("up/out")],
        [entry("up", kind="link", target="/")],
        [entry("short", size=100)],
    ],
    ids=["above", "absolute", "through a link", "a link out", "too short"],
)
def test_a_checkpoint_writes_nothing_outside_its_folder_and_leaves_what_is_there(
    store: Watched, tmp_path: Path, files: list[dict[str, Any]]
) -> None:
    folder = tmp_path / "saves"
    folder.mkdir()
    (folder / "mine").write_text("mine")
    with pytest.raises(FolderError, match="the checkpoint"):
        put_back(store, first_format(store, b"evil", files), folder, news=False, connections=2, timeout=PATIENCE_S)
    assert (folder / "mine").read_text() == "mine"
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_an_older_version_is_brought_back(store: Watched, tmp_path: Path) -> None:
    files = [{"path": "a/b", "mode": 0o600, "size": 2, "offset": 0}, entry("c", size=3, offset=2), entry("d", size=0)]
    manifest = first_format(store, b"abcde", files, part=2)
    put_back(store, manifest, tmp_path / "saves", news=False, connections=2, timeout=PATIENCE_S)
    paths = (tmp_path / "saves").rglob("[bcd]")
    seen = {path.name: (path.stat().st_mode & 0o777, path.read_bytes()) for path in paths}
    assert seen == {"b": (0o600, b"ab"), "c": (0o644, b"cde"), "d": (0o644, b"")}
