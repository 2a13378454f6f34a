"""`python -m infra.local.storage`: serve until SIGTERM, SIGINT or the parent's end."""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import threading

from infra.local.storage.memory import Pool
from infra.local.storage.server import StorageServer, World


def main() -> int:
    """Parse the arguments, print one ready line, serve."""
    parser = argparse.ArgumentParser(prog="python -m infra.local.storage", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="loopback port; 0 takes a free one (default)")
    parser.add_argument(
        "--preallocate", type=int, default=0, metavar="BYTES", help="object memory to touch before ready"
    )
    parser.add_argument("--parent-pid", type=int, default=None, metavar="PID", help="stop when this process is gone")
    arguments = parser.parse_args()

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if arguments.parent_pid is not None:
        watch_parent(arguments.parent_pid, stop)

    with StorageServer(arguments.port, World(Pool(arguments.preallocate))) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 60}, daemon=True).start()
        print(f"ready {server.url}", flush=True)
        stop.wait()
        server.socket.close()
    return 0


def watch_parent(pid: int, stop: threading.Event) -> None:
    """Set `stop` when process `pid` ends. A pidfd, not PR_SET_PDEATHSIG, which fires when a mere thread ends."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        stop.set()
        return

    def wait() -> None:
        select.select([descriptor], [], [])
        stop.set()

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
