"""A proxy that the environment names is used, or refused in words; it is never gone past."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from structlog.testing import capture_logs

from agent.notices.metadata import MetadataClient
from agent.store import StoreError, Unavailable, open_store
from agent.store.outgoing import outgoing
from agent.store.proxy import find_proxy
from agent.telemetry.cloud_log import cloud_log
from agent.vm.group import GroupError, Groups
from tests.agent.store.answering import dribbled, make_authority, serving

_LISTING = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
_NAMES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*_NAMES, "GCE_METADATA_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    context, certificate = make_authority(tmp_path, "storage.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    return context


@contextlib.contextmanager
def relaying(port: int, *, refuses: bool = False) -> Iterator[tuple[str, list[str]]]:
    """A proxy that connects whoever asks to `port` here; its address, and what it was asked."""
    asked: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked.append("".join(iter(lambda: self.rfile.readline().decode().replace("\r\n", "\n"), "\n")))
            if refuses:
                self.wfile.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", port)) as server:
                self.wfile.write(b"HTTP/1.1 200 Connected\r\n\r\n")
                threading.Thread(target=self._pass_on, args=(server, self.connection), daemon=True).start()
                self._pass_on(self.connection, server)

        def _pass_on(self, source: socket.socket, to: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    to.sendall(data)
                to.shutdown(socket.SHUT_WR)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def test_what_is_encrypted_goes_through_the_proxys_tunnel(
    authority: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "https://storage.example")
    with serving(_LISTING, tls=authority) as told, relaying(int(told.url.rpartition(":")[2])) as (proxy, asked):
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:p%40ss@{proxy}")
        store = open_store("gs://bucket/run")
        assert store.list(timeout=5) == store.list(timeout=5) == []
    assert len(asked) == 1, "one tunnel serves both"
    assert asked[0].startswith("CONNECT storage.example:443 ")
    assert "Proxy-Authorization: Basic dXNlcjpwQHNz" in asked[0]
    assert len(told.asked) == 2
    assert not any("proxy" in each.lower() for each in told.asked), "the server is told nothing of it"


def test_what_is_not_encrypted_is_asked_of_the_proxy_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://storage.example:4443")
    with serving(_LISTING) as told:
        monkeypatch.setenv("http_proxy", told.url)
        assert open_store("gs://bucket/run").list(timeout=5) == []
    assert told.asked[0].startswith("GET http://storage.example:4443/storage/v1/b/bucket/o?")
    assert "Host: storage.example:4443" in told.asked[0].splitlines()


def test_a_proxy_that_refuses_is_named_and_nobody_goes_past_it(
    authority: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(_LISTING, tls=authority) as told, relaying(0, refuses=True) as (proxy, _):
        monkeypatch.setattr("agent.store.proxy._is_here", lambda host: False)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", told.url)
        monkeypatch.setenv("ALL_PROXY", f"http://user:secret@{proxy}")
        with pytest.raises(Unavailable, match="407 Proxy Authentication Required") as raised:
            open_store("gs://bucket/run").list(timeout=0.3)
        assert "secret" not in str(raised.value)
        assert told.asked == []


def test_a_tunnel_that_dribbles_in_ends_with_the_call(
    authority: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "https://storage.example")
    with serving(dribbled(b"HTTP/1.1 200 OK\r\n", b"X-Many: x\r\n")) as told:
        monkeypatch.setenv("HTTPS_PROXY", told.url)
        with pytest.raises(Unavailable):
            open_store("gs://bucket/run").list(timeout=0.5)


@pytest.mark.parametrize("proxy", ["socks5://user:secret@proxy:1080", "https://user:secret@proxy", "http://proxy:port"])
def test_a_proxy_that_cannot_be_used_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(StoreError, match=r"HTTPS_PROXY .*http://HOST:PORT.*NO_PROXY") as raised:
        open_store("gs://bucket/run")
    assert "secret" not in str(raised.value)


def test_no_proxy_and_this_machine_itself_are_asked_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://proxy")
    monkeypatch.setenv("HTTP_PROXY", "socks5://proxy")
    monkeypatch.setenv("NO_PROXY", "metadata,.googleapis.com")
    for endpoint in (
        "https://storage.googleapis.com",
        "http://127.0.0.1:4443",
        "http://localhost:4443",
        "http://[::1]:1",
    ):
        assert find_proxy(endpoint) is None
    monkeypatch.setenv("NO_PROXY", "*")
    assert find_proxy("https://storage.example") is None
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("HTTPS_PROXY", "proxy:3128")
    found = find_proxy("https://storage.example")
    assert found and (found.host, found.port) == ("proxy", 3128)


def test_googles_other_apis_are_called_the_same_way_and_no_socks_proxy_ends_the_agent(
    authority: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """httpx2 raised ImportError for any SOCKS proxy that the environment names, also where it is not on the way."""
    monkeypatch.setenv("SPOT_LOGGING_URL", "https://storage.example")

    async def log_and_resize() -> str:
        metadata = MetadataClient()
        async with metadata, cloud_log(metadata) as sender:
            assert sender is None
        with pytest.raises(GroupError) as raised:
            await Groups(metadata.get, base="https://storage.example").resize("group", 0)
        return str(raised.value)

    async def ask() -> str:
        async with httpx2.AsyncClient(transport=outgoing("https://storage.example")) as client:
            return (await client.get("https://storage.example/b")).text

    monkeypatch.setenv("ALL_PROXY", "socks5://user:secret@proxy:1080")
    with capture_logs() as said:
        told = asyncio.run(log_and_resize())
    assert "and only http://HOST:PORT is supported" in told
    assert [event["reason"] for event in said if event["event"] == "cloud_log_away"] == [told]
    with serving(_LISTING, tls=authority) as server, relaying(int(server.url.rpartition(":")[2])) as (proxy, asked):
        monkeypatch.setenv("HTTPS_PROXY", proxy)  # the other one is not on the way now
        assert asyncio.run(ask()) == "{}"
    assert asked[0].startswith("CONNECT storage.example:443")
