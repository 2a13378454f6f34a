"""Answers that come slowly, early or not now: one deadline bounds all of it, and no server is asked too soon."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from agent.store import Refused, Unavailable
from tests.agent.store.answering import Answering, dribbled

TIMEOUT_S = 0.5
_HEAD = b"HTTP/1.1 200 OK\r\n"
_LISTING = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    ("begin", "each"),
    [
        (b"", b"H"),
        (_HEAD + b"X-Long: ", b"x"),
        (_HEAD, b"X-Many: x\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (_HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;note=", b"x"),
        (_HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Trailer: x\r\n"),
        (_HEAD + b"Connection: close\r\nContent-Length: 1000000\r\n\r\n", b"x"),
    ],
    ids=["status", "header", "headers", "100-continue", "chunk size", "trailers", "body"],
)
def test_an_answer_that_dribbles_in_ends_with_the_call(answering: Answering, begin: bytes, each: bytes) -> None:
    store = answering(dribbled(begin, each))
    began = time.monotonic()
    with pytest.raises(Unavailable):
        store.read("part", timeout=TIMEOUT_S)
    assert time.monotonic() - began < 2 * TIMEOUT_S


def test_a_head_that_dribbles_in_leaves_time_for_another_try(answering: Answering) -> None:
    assert answering(dribbled(_HEAD, b"X-Many: x\r\n"), _LISTING).list(timeout=2) == []


def test_an_early_answer_is_heard_although_the_server_takes_no_more_of_the_body(answering: Answering) -> None:
    store = answering(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n", reads_bodies=False)
    with pytest.raises(Refused, match="413"):
        store.create("part", bytes(64 << 20), timeout=3)


def _busy(retry_after: str) -> bytes:
    return f"HTTP/1.1 503 Busy\r\nRetry-After: {retry_after}\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr("agent.store.transport.time.sleep", slept.append)
    return slept


def test_a_server_is_left_alone_for_as_long_as_it_wishes(answering: Answering, slept: list[float]) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=9), usegmt=True)
    assert answering(_busy("7"), _busy(soon), _busy("-1"), _busy("soon"), _LISTING).list(timeout=60) == []
    assert slept[0] == 7.0
    assert 7.0 < slept[1] < 9.0
    assert all(pause < 1.0 for pause in slept[2:])


def test_a_server_that_wishes_for_longer_than_there_is_time_is_asked_again_before_the_deadline(
    answering: Answering, slept: list[float]
) -> None:
    assert answering(_busy("3600"), _LISTING).list(timeout=3) == []
    assert slept == [pytest.approx(1.0, abs=0.2)]


def test_an_answer_that_is_compressed_unasked_is_not_taken_for_what_it_says(answering: Answering) -> None:
    store = answering(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}")
    with pytest.raises(Unavailable, match="encoded"):
        store.list(timeout=TIMEOUT_S)
