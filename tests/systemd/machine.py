"""A machine to install on and to boot: this one's file system under an overlay that is thrown away, with its own /run.

Everything in it is real but systemd, which answers `systemctl` from the files alone (SYSTEMD_OFFLINE).
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_SETUP = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
cd "$1"
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
mount -t proc proc root/proc
mount --rbind /dev root/dev
mount -t tmpfs tmpfs root/run
mount -t tmpfs tmpfs root/tmp
if [ -e "$2" ]; then mkdir -p "root$2"; mount --bind "$2" "root$2"; fi
echo ready
exec cat
"""


@dataclass
class Machine:
    """`shared` is a folder that is the same inside and outside."""

    holder: int
    root: Path
    shared: Path
    env: dict[str, str] = field(default_factory=dict)

    def run(self, *command: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command as root of the machine."""
        own = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "SYSTEMD_OFFLINE": "1", **self.env}
        pip = {key: value for key, value in os.environ.items() if key.startswith("PIP_") or key.endswith("_CA_BUNDLE")}
        return subprocess.run(
            ["nsenter", f"--target={self.holder}", "--mount", "--", "chroot", str(self.root), *command],
            env=pip | own,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    def read(self, path: str) -> str:
        """A file of the machine; empty where there is none."""
        return self.run("cat", path).stdout

    def exists(self, path: str) -> bool:
        return self.run("test", "-e", path).returncode == 0


@contextmanager
def machine(shared: Path) -> Iterator[Machine]:
    """A machine that is gone when the block, or this process, ends: its mounts live in a namespace of their own."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount")
    with tempfile.TemporaryDirectory(prefix="spot-machine-") as place:
        holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", _SETUP, "sh", place, str(shared)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert holder.stdin and holder.stdout and holder.stderr
        try:
            if holder.stdout.readline() != "ready\n":
                pytest.skip(f"no overlay can be mounted here: {holder.stderr.read().strip()}")
            yield Machine(holder.pid, Path(place) / "root", shared)
        finally:
            holder.stdin.close()
            holder.wait(10.0)
            holder.stdout.close()
            holder.stderr.close()
