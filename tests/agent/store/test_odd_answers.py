"""Answers that a bucket gives seldom, and that only something between us and it gives."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest
from crc32c import crc32c

from agent.store import Refused, StoreError, Unavailable
from tests.agent.store.answering import Answering

_DATA = b"weights" * 1000
_CRC = base64.b64encode(crc32c(_DATA).to_bytes(4)).decode()
_OBJECT = {"name": "run/part", "size": "7000", "crc32c": _CRC, "generation": "1", "updated": "2026-01-02T03:04:05.6Z"}


def _chunked(body: bytes, headers: str = "") -> bytes:
    pieces = [body[at : at + 999] for at in range(0, len(body), 999)]
    chunks = b"".join(b"%x;note=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{headers}\r\n".encode() + chunks + b"0\r\n\r\n"


def _plain(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def test_answers_in_chunks_are_read_on_the_hot_path(answering: Answering) -> None:
    store = answering(_chunked(json.dumps(_OBJECT).encode()))
    for _ in range(2):  # the connection is kept, and stands at the right byte
        assert store.create("part", _DATA, timeout=5).crc32c == crc32c(_DATA)
    store = answering(_chunked(_DATA, f"x-goog-hash: crc32c={_CRC}\r\n"))
    into = bytearray(7000)
    store.read_into("part", memoryview(into), timeout=5)
    assert into == _DATA == store.read("part", timeout=5)


def test_chunks_that_end_early_are_not_taken_for_the_whole(answering: Answering) -> None:
    store = answering(_chunked(_DATA, f"x-goog-hash: crc32c={_CRC}\r\nConnection: close\r\n")[:5000])
    with pytest.raises(Unavailable):
        store.read("part", timeout=0.3)


@pytest.mark.parametrize("field", ["size", "crc32c", "generation", "updated"])
def test_an_answer_without_a_field_is_a_store_error_that_shows_it(answering: Answering, field: str) -> None:
    lacking = {key: value for key, value in _OBJECT.items() if key != field}
    store = answering(_plain(json.dumps({**lacking, "items": [lacking]}).encode()))
    with pytest.raises(Refused, match=field):
        store.create("part", _DATA, timeout=2)
    with pytest.raises(Refused, match=field):
        store.list(timeout=2)


@pytest.mark.parametrize(
    "answer",
    [
        _plain(b"<html>Sign in to the wireless network</html>"),
        _plain(b"", "302 Found", "Location: https://portal.example/\r\n"),
        _plain(b"", "308 Resume Incomplete"),
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
    ],
    ids=["a login page", "a redirect", "308", "hints alone", "no length"],
)
def test_what_a_proxy_answers_is_unavailable_not_a_crash(answering: Answering, answer: bytes) -> None:
    store = answering(answer)
    calls: list[Callable[[], object]] = [
        lambda: store.create("part", _DATA, timeout=0.3),
        lambda: store.list(timeout=0.3),
        lambda: store.copy("a", "b", timeout=0.3),
    ]
    for call in calls:
        with pytest.raises(Unavailable):
            call()


def test_a_bucket_whose_requesters_pay_is_refused_with_what_to_do(answering: Answering) -> None:
    message = "Bucket is a requester pays bucket but no user project provided."
    store = answering(_plain(json.dumps({"error": {"code": 400, "message": message}}).encode(), "400 Bad Request"))
    with pytest.raises(StoreError, match="--no-requester-pays"):
        store.check(timeout=2)
