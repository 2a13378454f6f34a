"""A deadline is one number for the whole call: the name's, and each address's, are in it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from agent.store import Unavailable, connect, open_store
from tests.agent.store.conftest import BucketPlace

TIMEOUT_S = 0.6


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "_known", {})


@pytest.fixture
def dead() -> Iterator[int]:
    """A port that takes no connection and refuses none: its queue is full."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield server.getsockname()[1]


def found_at(*ports: int) -> Any:
    return lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]


def test_sixteen_dead_addresses_take_no_longer_than_one(
    bucket: BucketPlace, dead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", found_at(*[dead] * 16))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://storage.example:1")
    begun = time.monotonic()
    with pytest.raises(Unavailable):
        open_store("gs://bucket/run").read("part", timeout=TIMEOUT_S)
    assert time.monotonic() - begun < 3 * TIMEOUT_S, "it was sixteen times as long"


def test_an_address_that_answers_is_found_behind_those_that_do_not(dead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as alive:
        monkeypatch.setattr(socket, "getaddrinfo", found_at(dead, dead, alive.getsockname()[1]))
        with connect.connect(("storage.example", 443), 1.5) as connection:
            assert connection.getpeername() == alive.getsockname()


def test_a_name_that_nobody_resolves_takes_no_longer_than_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(20.0))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://storage.example:1")
    begun = time.monotonic()
    try:
        with pytest.raises(Unavailable, match=r"where storage\.example is"):
            open_store("gs://bucket/run").read("part", timeout=TIMEOUT_S)
        assert time.monotonic() - begun < 3 * TIMEOUT_S
    finally:
        over.set()


def test_an_address_that_was_found_before_serves_while_the_resolver_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", found_at(443))
    first = connect.resolve("storage.example", 443, timeout=1.0)
    monkeypatch.setattr(connect, "_FRESH_S", 0.0)
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(20.0))
    assert connect.resolve("storage.example", 443, timeout=0.1) == first
    over.set()
