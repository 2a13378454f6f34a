from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest

from infra.local.storage.control import ControlError, StorageControl, running_storage
from infra.local.storage.memory import BLOCK_BYTES, Data, Filling, Pool
from infra.local.storage.objects import Storage


def connect(url: str) -> socket.socket:
    """A connection whose end tells that the server's process is gone."""
    return socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=10)


def at_end(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_the_server_prints_one_ready_line_and_ends_cleanly_on_sigterm() -> None:
    command = [sys.executable, "-m", "infra.local.storage", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            line = process.stdout.readline()
            assert line.startswith("ready http://127.0.0.1:")
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
            assert (process.stdout.read(), process.stderr.read()) == ("", "")
        finally:
            process.kill()


def test_the_server_does_not_outlive_its_parent() -> None:
    program = (
        "import sys\n"
        "from infra.local.storage.control import running_storage\n"
        "with running_storage() as storage:\n"
        "    print(storage.url, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        with connect(parent.stdout.readline().strip()) as connection:
            os.kill(parent.pid, signal.SIGKILL)
            assert at_end(connection)


def test_running_storage_stops_its_server_and_says_why_one_does_not_start(server: StorageControl) -> None:
    taken = int(server.url.rsplit(":", 1)[1])
    with pytest.raises(ControlError, match="exit status 1"), running_storage(port=taken):
        pass
    with running_storage() as storage, connect(storage.url) as connection:
        storage.create_bucket("bucket")
        url = storage.url
        connection.sendall(b"")
    with pytest.raises(ConnectionRefusedError):
        connect(url)


def test_memory_of_a_deleted_object_is_used_again_once_nobody_reads_it() -> None:
    pool = Pool(preallocate=1)
    free = pool.free_bytes
    filling = Filling(pool)
    filling.extend(bytes(3 * BLOCK_BYTES))
    bucket = Storage().create_bucket("bucket")
    bucket.insert("part", filling.data(), {}, crc32c=filling.crc32c)
    del filling
    download: Data | None = bucket.get("part").data.part(10, 20)
    assert pool.free_bytes == free - 3 * BLOCK_BYTES
    bucket.delete("part")
    assert pool.free_bytes == free - BLOCK_BYTES
    del download
    assert pool.free_bytes == free
