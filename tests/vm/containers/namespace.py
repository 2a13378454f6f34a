"""Servers inside of a VM's network: made in its network namespace, run by the rig."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
METADATA_ADDRESS = "169.254.169.254"
_CLONE_NEWNET = 0x40000000


def in_network_of(pid: int, make: Callable[[], T]) -> T:
    """`make()` in a thread that is in the network of process `pid`: sockets it makes stay there."""
    made: list[T] = []
    failed: list[BaseException] = []

    def enter() -> None:
        try:
            namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(namespace, _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            finally:
                os.close(namespace)
            made.append(make())
        except BaseException as error:  # noqa: BLE001 - it is raised again below
            failed.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def add_metadata_address(pid: int) -> None:
    """The metadata server's address, on the VM's own loopback: nothing of it is seen outside."""
    command = ["ip", "address", "add", f"{METADATA_ADDRESS}/32", "dev", "lo"]
    subprocess.run(["nsenter", "--target", str(pid), "--net", *command], check=True, timeout=10.0)
