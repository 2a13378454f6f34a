"""What TLS makes different: session tickets look like an answer, and a piece has one wait, however far it gets."""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
import time
from pathlib import Path

import pytest

from agent.store.connection import Connection, Question
from tests.agent.store.answering import make_authority

_SIZE = 5 << 20


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    context, certificate = make_authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.delenv("GCE_METADATA_HOST", raising=False)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    return context


def test_a_slow_but_steady_upload_is_no_stall(authority: ssl.SSLContext) -> None:
    class Slow(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with authority.wrap_socket(self.request, server_side=True) as connection:
                left = _SIZE
                while left > 0:
                    left -= len(connection.recv(64 << 10))
                    over.wait(0.003)  # a record of 16 KiB
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    class Server(socketserver.ThreadingTCPServer):
        def server_bind(self) -> None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 10)
            super().server_bind()

    over = threading.Event()
    with Server(("127.0.0.1", 0), Slow) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        here = f"https://127.0.0.1:{server.server_address[1]}"
        connection = Connection(here, ssl.create_default_context(), None)
        question = Question("POST", "/", {}, [memoryview(bytes(_SIZE))])
        assert connection.ask(question, time.monotonic() + 20, 0.25).status == 200
        connection.close()
        server.shutdown()
