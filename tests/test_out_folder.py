"""`spot run`'s folder: one command's at a time, and nothing in it is deleted that somebody could want."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from infra.local.out_folder import CannotRun, OutFolder, alone_in
from infra.local.vm import DISK


def test_a_second_command_in_the_folder_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with OutFolder.opened(tmp_path / "out", "mine") as first:
        (first.path / "bucket").mkdir()
        for fresh in (False, True):
            with (
                pytest.raises(CannotRun, match=f"run mine is going in .* already, as process {os.getpid()}"),
                OutFolder.opened(tmp_path / "out", "mine", fresh=fresh),
            ):
                pass
        assert first.bucket.exists()
    with OutFolder.opened(tmp_path / "out", "mine"):
        pass
    with pytest.raises(CannotRun, match="is the folder of run mine, not of other"):
        OutFolder.opened(tmp_path / "out", "other").__enter__()
    with (
        alone_in(tmp_path / "bucket/mine", "mine"),
        pytest.raises(CannotRun, match="is going in"),
        alone_in(tmp_path / "bucket/mine", "mine"),
    ):
        pass


def test_what_is_there_stays_and_fresh_moves_it_aside(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with OutFolder.opened(out, "mine") as folder:
        folder.bucket.mkdir()
        (folder.bucket / "checkpoint").write_text("dear")
    with OutFolder.opened(out, "mine") as folder:
        assert (folder.bucket / "checkpoint").read_text() == "dear"
    with OutFolder.opened(out, "mine", fresh=True) as folder:
        assert not folder.bucket.exists()
    assert [path.read_text() for path in tmp_path.glob("out-before-*/bucket/checkpoint")] == ["dear"]


@pytest.mark.parametrize("fresh", [False, True])
def test_what_no_run_has_made_is_not_touched(fresh: bool, tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket/theirs").touch()
    with (
        pytest.raises(CannotRun, match=r"holds bucket, which .* has not made: nothing in it is touched\n    fix: "),
        OutFolder.opened(tmp_path, "mine", fresh=fresh),
    ):
        pass
    assert (tmp_path / "bucket/theirs").exists()


def test_a_vm_that_outlived_its_command_is_switched_off_and_old_disks_keep_their_logs(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with OutFolder.opened(out, "mine") as folder:
        for boot in (1, 2, 10):
            disk = folder.vms / f"mine-boot{boot}"
            (disk / "state").mkdir(parents=True)
            for name in ("agent.log", "metrics.jsonl", "arena"):
                (disk / name).touch()
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    left = subprocess.Popen(sleep, env=os.environ | {DISK: str(out / "vms/mine-boot10")})
    other = subprocess.Popen(sleep, env=os.environ | {DISK: str(tmp_path / "other/vms/mine-boot10")})
    try:
        with OutFolder.opened(out, "mine") as folder:
            assert not psutil.pid_exists(left.pid)
            assert other.poll() is None
            assert folder.booted == 10
            kept = [sorted(path.name for path in disk.iterdir()) for _, disk in folder.disks()]
            whole = ["agent.log", "arena", "metrics.jsonl", "state"]
            assert kept == [["agent.log", "metrics.jsonl"], whole, whole]
    finally:
        left.kill()
        other.kill()
        other.wait(10)
