"""`python -m tests.vm.containers.keeper NAME`: has a Docker daemon ready, and cleans up after whoever started it.

It prints the daemon's address (or `no REASON`), and waits until its standard input ends, which it does however the
tests' process ends. Then it removes every container and network labelled NAME, and stops the daemon if it started it.
"""

from __future__ import annotations

import fcntl
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.vm.containers.docker import Docker, DockerError, cache_folder, start_daemon


def main(name: str) -> None:
    """One rig a machine: they measure time. A second waits for the first."""
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.SIG_IGN)  # they are for the tests' process, whose end we hear of
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = Path(tempfile.mkdtemp(prefix="spot-vm-"))
        daemon: subprocess.Popen[bytes] | None = None
        try:
            docker = Docker()
            if not shutil.which("docker"):
                raise DockerError("there is no docker here: install Docker, on Debian the package docker.io")
            if not docker.answers():
                daemon, docker = start_daemon(folder)
            docker.remove_labelled()  # of rigs that could not clean up: the machine lost its power, say
            print(f"ready {docker.host}", flush=True)
            sys.stdin.read()
            docker.remove_labelled(name)
        except DockerError as error:
            print("no", " ".join(str(error).split()), flush=True)
        finally:
            if daemon:
                daemon.terminate()
                try:
                    daemon.wait(30.0)
                except subprocess.TimeoutExpired:
                    daemon.kill()
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
