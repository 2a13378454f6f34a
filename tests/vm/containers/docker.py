"""The docker command line, and a daemon where none runs.

The command line and not a library: it is there wherever a daemon is, asks for nothing from a registry, and needs none
of the helpers (a reaper's image, compose) that pytest-docker and testcontainers come with.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LABEL = "spot-training.rig"
_CALL_S = 120.0
_START_S = 60.0


class DockerError(Exception):
    """A docker command failed; the text is what it said."""


def cache_folder() -> Path:
    """Where images' sources, bundles and the daemon's data outlive a session."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "spot-training" / "vm"


@dataclass(frozen=True)
class Docker:
    """One daemon. Every call has a time limit in seconds."""

    host: str = field(default_factory=lambda: os.environ.get("DOCKER_HOST", ""))

    def __call__(self, *arguments: str, timeout: float = _CALL_S, stdin: Any = subprocess.DEVNULL) -> str:
        """Run `docker ARGUMENTS`; returns its output. Raises DockerError."""
        try:
            done = subprocess.run(
                ["docker", *arguments],
                env=self.env(),
                stdin=stdin,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise DockerError(f"docker {' '.join(arguments)}: not done after {timeout:.0f} s") from error
        if done.returncode:
            raise DockerError(f"docker {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout.strip()

    def env(self) -> dict[str, str]:
        return os.environ | ({"DOCKER_HOST": self.host} if self.host else {})

    def inspect(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("inspect", name))[0]
        return found

    def answers(self) -> bool:
        try:
            self("version", timeout=10.0)
        except DockerError:
            return False
        return True

    def has_image(self, name: str) -> bool:
        return bool(self("images", "--quiet", name))

    def remove_labelled(self, value: str | None = None) -> None:
        """Remove all containers and networks of rigs, or of the rig `value`."""
        chosen = f"label={LABEL}" + (f"={value}" if value else "")
        if containers := self("ps", "--all", "--quiet", "--filter", chosen).split():
            self("rm", "--force", "--volumes", *containers)
        if networks := self("network", "ls", "--quiet", "--filter", chosen).split():
            self("network", "rm", *networks)


def start_daemon(folder: Path) -> tuple[subprocess.Popen[bytes], Docker]:
    """A daemon of our own, which touches neither another daemon's bridge nor the host's packet filter.

    `folder` holds its socket and log; its images stay in the cache. Raises DockerError when it does not come up.
    """
    if not shutil.which("dockerd"):
        raise DockerError("there is no dockerd here: install Docker, on Debian the package docker.io")
    folder.mkdir(parents=True, exist_ok=True)
    docker = Docker(f"unix://{folder}/docker.sock")
    with (folder / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "dockerd",
                *("--storage-driver", "overlay2", "--data-root", str(cache_folder() / "docker")),
                *("--exec-root", str(folder / "exec"), "--pidfile", str(folder / "docker.pid"), "--host", docker.host),
                *("--bridge", "none", "--iptables=false", "--ip6tables=false"),
            ],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_S
    while not docker.answers():
        if process.poll() is not None or time.monotonic() > deadline:
            process.terminate()
            last = (folder / "dockerd.log").read_text(errors="replace").splitlines()[-3:]
            raise DockerError("dockerd did not come up; it said:\n" + "\n".join(last))
        time.sleep(0.1)
    return process, docker
