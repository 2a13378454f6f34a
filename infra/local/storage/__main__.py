"""`python -m infra.local.storage`: serve until SIGTERM, SIGINT or the parent's end."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import sys
import threading
from pathlib import Path

from infra.local.storage.memory import Pool
from infra.local.storage.objects import Storage
from infra.local.storage.server import StorageServer, World

_ENDINGS = (signal.SIGTERM, signal.SIGINT)


def main() -> int:
    """Parse the arguments, print one ready line, serve."""
    parser = argparse.ArgumentParser(prog="python -m infra.local.storage", description=__doc__)
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on (default: loopback)")
    parser.add_argument("--port", type=int, default=0, help="port; 0 takes a free one (default)")
    parser.add_argument(
        "--preallocate", type=int, default=0, metavar="BYTES", help="object memory to touch before ready"
    )
    parser.add_argument(
        "--folder", type=Path, default=None, help="keep the buckets there, from one start to the next (default: memory)"
    )
    parser.add_argument("--parent-pid", type=int, default=None, metavar="PID", help="stop when this process is gone")
    arguments = parser.parse_args()

    # Blocked here and so in every thread: they wait for `sigwait`, however early they come.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
    if arguments.parent_pid is not None:
        watch_parent(arguments.parent_pid)

    world = World(Pool(arguments.preallocate), Storage(folder=arguments.folder))
    with StorageServer(arguments.port, world, address=arguments.address) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 60}, daemon=True).start()
        print(f"ready {server.url}", flush=True)
        signal.sigwait(_ENDINGS)
    return 0


def watch_parent(pid: int) -> None:
    """SIGTERM to ourselves when process `pid` ends. PR_SET_PDEATHSIG would do so when a mere thread of it ends."""

    def wait() -> None:
        with contextlib.suppress(ProcessLookupError):  # It may be gone already.
            select.select([os.pidfd_open(pid)], [], [])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
