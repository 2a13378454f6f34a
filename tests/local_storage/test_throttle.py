from __future__ import annotations

import socket
import threading
import time

import httpx2
import pytest

from infra.local.storage.control import StorageControl
from infra.local.storage.throttle import Pace, Throttle, Throttles

UPLOAD = "/upload/storage/v1/b/bucket/o?uploadType=media&name="


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def move(pace: Pace, count: int) -> None:
    while count:
        piece = pace.piece(count)
        pace.passed(piece)
        count -= piece


def test_a_stream_takes_the_time_its_rate_says() -> None:
    clock = Clock()
    throttles = Throttles(clock, clock.sleep)
    throttles.limits = Throttle(stream_bytes_per_s=1e6)
    move(throttles.upload(), 3_000_000)
    assert clock.now == pytest.approx(103.0)


@pytest.mark.parametrize(("both_up", "seconds"), [(True, 2.0), (False, 1.0)])
def test_streams_share_the_total_of_their_direction(both_up: bool, seconds: float) -> None:
    clock = Clock()
    throttles = Throttles(clock, clock.sleep)
    throttles.limits = Throttle(total_bytes_per_s=1e6)
    streams = [throttles.upload(), throttles.upload() if both_up else throttles.download()]
    for _ in range(20):
        for stream in streams:
            move(stream, 50_000)
    assert clock.now == pytest.approx(100.0 + seconds, abs=0.051)


def test_a_throttle_holds_for_streams_under_way() -> None:
    clock = Clock()
    throttles = Throttles(clock, clock.sleep)
    stream = throttles.upload()
    move(stream, 10_000_000)
    assert clock.now == 100.0
    throttles.limits = Throttle(stream_bytes_per_s=1e6)
    clock.now += 60  # A pause earns no credit worth mentioning.
    move(stream, 1_000_000)
    assert clock.now == pytest.approx(161.0, abs=0.051)


def test_the_server_holds_uploads_and_downloads_to_the_rate(storage: StorageControl, http: httpx2.Client) -> None:
    storage.throttle(stream_bytes_per_s=10e6)
    data = bytes(2_000_000)
    begun = time.monotonic()
    http.post(UPLOAD + "part", content=data)
    uploaded = time.monotonic()
    assert http.get("/storage/v1/b/bucket/o/part?alt=media").content == data
    # No less than the rate allows; how much more depends on the machine.
    assert uploaded - begun > 0.1 and time.monotonic() - uploaded > 0.1


def test_the_total_is_shared_by_connections(storage: StorageControl, http: httpx2.Client) -> None:
    storage.throttle(total_bytes_per_s=10e6)
    senders = [
        threading.Thread(target=http.post, args=(f"{UPLOAD}part{i}",), kwargs={"content": bytes(1_000_000)})
        for i in range(3)
    ]
    begun = time.monotonic()
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(10)
    assert time.monotonic() - begun > 0.2


def test_the_first_byte_of_an_answer_takes_its_latency(storage: StorageControl, http: httpx2.Client) -> None:
    storage.throttle(first_byte_s=0.1)
    begun = time.monotonic()
    assert http.get("/storage/v1/b/bucket").status_code == 200
    assert time.monotonic() - begun >= 0.1


def test_the_control_api_is_never_throttled(storage: StorageControl) -> None:
    storage.throttle(first_byte_s=300)
    storage.clear()


def test_keep_alive_serves_many_requests_on_one_connection(storage: StorageControl) -> None:
    port = int(storage.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        request = b"GET /storage/v1/b/bucket HTTP/1.1\r\nHost: x\r\n\r\n"
        connection.sendall(request * 3)
        answers = b""
        while answers.count(b'"storage#bucket"') < 3:
            got = connection.recv(65536)
            assert got
            answers += got
    assert answers.count(b"HTTP/1.1 200 OK") == 3
