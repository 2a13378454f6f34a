from __future__ import annotations

import threading
from http.client import HTTPConnection, IncompleteRead
from typing import Any

import crc32c
import httpx2
import pytest
from google.cloud import storage as gcs
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY

from infra.local.storage.control import ControlError, StorageControl
from infra.local.storage.faults import Fault, Faults, Outage
from infra.local.storage.flow import Flow, Hangup
from infra.local.storage.resources import encode_crc32c
from infra.local.storage.throttle import Throttles

UPLOAD = "/upload/storage/v1/b/bucket/o?uploadType=media&name="
PART = "/storage/v1/b/bucket/o/part"
DATA = bytes(range(256)) * 4000
CRC = encode_crc32c(crc32c.crc32c(DATA))


def put(http: httpx2.Client, name: str = "part", **options: Any) -> httpx2.Response:
    return http.post(UPLOAD + name, content=DATA, **options)


def raw_connection(storage: StorageControl) -> HTTPConnection:
    return HTTPConnection(storage.url.removeprefix("http://"), timeout=5)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_an_error_status_comes_as_often_as_asked_and_does_nothing(
    storage: StorageControl, http: httpx2.Client, status: int
) -> None:
    storage.fault("status", status=status, action="create", count=2)
    answers = [put(http).status_code, http.get(PART).status_code, put(http).status_code, put(http).status_code]
    assert answers == [status, 404, status, 200]


def test_an_error_after_the_work_is_done_loses_only_the_answer(storage: StorageControl, http: httpx2.Client) -> None:
    storage.fault("status", action="create", after_done=True)
    assert put(http).status_code == 503
    assert http.get(PART).json()["crc32c"] == CRC


def test_googles_client_rides_out_errors(storage: StorageControl, bucket: gcs.Bucket) -> None:
    storage.fault("status", status=503, count=2)
    storage.fault("status", status=429, count=1)
    storage.fault("reset", count=1)
    quick = DEFAULT_RETRY.with_delay(initial=0.01, maximum=0.02)
    bucket.blob("part").upload_from_string(DATA, if_generation_match=0, retry=quick)
    assert bucket.blob("part").download_as_bytes() == DATA
    assert storage.pending_faults() == []


def test_a_rule_strikes_only_what_it_matches(storage: StorageControl, http: httpx2.Client) -> None:
    storage.fault("status", method="POST", action="create", name=r"/shard-\d+$", count=None)
    assert put(http, "run%2Fshard-1").status_code == 503
    assert put(http, "run%2Fmanifest").status_code == 200
    assert http.get("/storage/v1/b/bucket/o/run%2Fshard-1").status_code == 404
    assert put(http, "run%2Fshard-2").status_code == 503


@pytest.mark.parametrize("kind", ["multipart", "resumable"])
def test_a_name_inside_the_body_is_matched_too(storage: StorageControl, bucket: gcs.Bucket, kind: str) -> None:
    storage.fault("status", name="^wanted$", status=400)
    blob = bucket.blob("wanted", chunk_size=None if kind == "multipart" else 256 * 1024)
    with pytest.raises(Exception, match="Injected"):
        blob.upload_from_string(b"data")


def test_a_probability_is_drawn_for_each_request() -> None:
    draws = iter([0.6, 0.4, 0.6])
    faults = Faults(chance=lambda: next(draws))
    faults.add(Fault(kind="reset", probability=0.5, count=None))
    assert [faults.pick("GET", "get", "x") is not None for _ in range(3)] == [False, True, False]


def test_a_reset_in_the_middle_of_an_upload_stores_nothing(storage: StorageControl, http: httpx2.Client) -> None:
    storage.fault("reset", action="create", after_bytes=500_000)
    with pytest.raises(httpx2.TransportError):
        put(http)
    assert http.get(PART).status_code == 404
    seen = next(entry for entry in storage.requests() if entry.fault == "reset")
    assert (seen.received, seen.status) == (500_000, 0)


def test_a_reset_instead_of_the_answer_leaves_the_work_done(storage: StorageControl, http: httpx2.Client) -> None:
    storage.fault("reset", action="create", after_done=True)
    with pytest.raises(httpx2.TransportError):
        put(http)
    assert http.get(PART).json()["crc32c"] == CRC


def test_a_reset_is_a_reset_not_an_orderly_end(storage: StorageControl) -> None:
    storage.fault("reset", after_done=True)
    connection = raw_connection(storage)
    connection.request("GET", "/storage/v1/b/bucket")
    with pytest.raises(ConnectionResetError):
        connection.sock.recv(1)
    connection.close()


def test_a_reset_before_a_delete_deletes_nothing(storage: StorageControl, http: httpx2.Client) -> None:
    put(http)
    storage.fault("reset", action="delete")
    with pytest.raises(httpx2.TransportError):
        http.delete(PART)
    assert http.get(PART).status_code == 200


def test_a_reset_in_the_middle_of_a_download_is_felt(storage: StorageControl, http: httpx2.Client) -> None:
    put(http)
    storage.fault("reset", action="get", after_bytes=1000)
    with pytest.raises(httpx2.TransportError):
        http.get(f"{PART}?alt=media")


def test_a_truncated_download_ends_early_and_orderly(storage: StorageControl, http: httpx2.Client) -> None:
    put(http)
    storage.fault("truncate", after_bytes=1000)
    connection = raw_connection(storage)
    connection.request("GET", f"{PART}?alt=media")
    with pytest.raises(IncompleteRead) as cut:
        connection.getresponse().read()
    assert cut.value.partial == DATA[:1000]
    connection.close()


def test_a_stall_holds_the_bytes_until_it_is_cleared(storage: StorageControl, http: httpx2.Client) -> None:
    put(http)
    storage.fault("stall", action="get", after_bytes=1000, seconds=600)
    connection = raw_connection(storage)
    connection.request("GET", f"{PART}?alt=media")
    answer = connection.getresponse()
    assert answer.read(1000) == DATA[:1000]
    # Whose answer has begun to arrive is in the log.
    assert [(seen.status, seen.fault) for seen in storage.requests() if seen.action == "get"] == [(200, "stall")]
    rest: list[bytes] = []
    reader = threading.Thread(target=lambda: rest.append(answer.read()))
    reader.start()
    storage.clear()
    reader.join(10)
    assert rest == [DATA[1000:]]
    connection.close()


def test_a_stall_outlasts_a_client_that_waits_less(storage: StorageControl, http: httpx2.Client) -> None:
    storage.fault("stall", action="create", seconds=600)
    with pytest.raises(httpx2.TimeoutException):
        put(http, timeout=0.1)
    storage.clear()


def test_a_wrong_checksum_is_in_the_answer_not_in_the_object(storage: StorageControl, http: httpx2.Client) -> None:
    storage.fault("wrong_checksum", action="create")
    assert put(http).json()["crc32c"] != CRC
    assert http.get(PART).json()["crc32c"] == CRC
    storage.fault("wrong_checksum", action="get")
    assert CRC not in http.get(f"{PART}?alt=media").headers["X-Goog-Hash"]


def test_googles_client_refuses_a_wrong_checksum(storage: StorageControl, bucket: gcs.Bucket) -> None:
    bucket.blob("part").upload_from_string(DATA)
    storage.fault("wrong_checksum", action="get")
    with pytest.raises(DataCorruption):
        bucket.blob("part").download_as_bytes()


def test_a_byte_flipped_on_its_way_down_leaves_the_object_whole(storage: StorageControl, http: httpx2.Client) -> None:
    put(http)
    storage.fault("flip", action="get", after_bytes=1234)
    got = http.get(f"{PART}?alt=media").content
    assert [i for i in range(len(DATA)) if got[i] != DATA[i]] == [1234]
    assert http.get(f"{PART}?alt=media").content == DATA


def test_a_byte_flipped_on_its_way_up_shows_in_the_checksum(storage: StorageControl, http: httpx2.Client) -> None:
    storage.fault("flip", action="create", after_bytes=1234, count=2)
    refused = put(http, headers={"X-Goog-Hash": f"crc32c={CRC}"})
    assert refused.status_code == 400
    assert put(http).json()["crc32c"] != CRC


@pytest.mark.parametrize("fresh_checksum", [False, True])
def test_a_corrupted_object_has_one_byte_changed(
    storage: StorageControl, http: httpx2.Client, fresh_checksum: bool
) -> None:
    put(http)
    http.post(f"{PART}/rewriteTo/b/bucket/o/copy")
    storage.corrupt("bucket", "part", offset=77, fresh_checksum=fresh_checksum)
    got = http.get(f"{PART}?alt=media")
    assert [i for i in range(len(DATA)) if got.content[i] != DATA[i]] == [77]
    assert (f"crc32c={CRC}" in got.headers["X-Goog-Hash"]) is not fresh_checksum
    assert http.get("/storage/v1/b/bucket/o/copy?alt=media").content == DATA
    with pytest.raises(ControlError, match="Out of range"):
        storage.corrupt("bucket", "part", offset=len(DATA))


def test_a_truncated_object_is_shorter_and_says_so(storage: StorageControl, http: httpx2.Client) -> None:
    generation = put(http).json()["generation"]
    storage.truncate("bucket", "part", 1000)
    told = http.get(PART).json()
    assert (told["size"], told["generation"]) == ("1000", generation)
    assert http.get(f"{PART}?alt=media").content == DATA[:1000]


def test_an_outage_resets_everything_until_it_ends(storage: StorageControl, http: httpx2.Client) -> None:
    put(http)
    storage.outage()
    for _ in range(3):
        with pytest.raises(httpx2.TransportError):
            http.get(PART)
    storage.end_outage()
    assert http.get(PART).status_code == 200


def test_an_outage_cuts_off_an_upload_under_way(storage: StorageControl) -> None:
    connection = raw_connection(storage)
    connection.putrequest("POST", UPLOAD + "part")
    connection.putheader("Content-Length", str(len(DATA)))
    connection.endheaders()
    connection.send(DATA[:1000])
    storage.outage()
    with pytest.raises(ConnectionError):
        for start in range(1000, len(DATA), 1000):
            connection.send(DATA[start : start + 1000])
        connection.getresponse()
    connection.close()


def test_bytes_that_arrive_as_an_outage_begins_are_lost() -> None:
    faults = Faults()
    flow = Flow(Throttles().upload(), faults)
    assert flow.take(1000) == 1000
    faults.begin_outage(Outage(mode="reset"))
    with pytest.raises(Hangup):
        flow.passed(1000)


def test_an_outage_can_answer_503(storage: StorageControl, http: httpx2.Client) -> None:
    storage.outage("unavailable")
    assert (put(http).status_code, http.get(PART).status_code) == (503, 503)
    storage.end_outage()
    assert http.get(PART).status_code == 404


def test_in_a_blackhole_nothing_moves_until_it_ends(storage: StorageControl, http: httpx2.Client) -> None:
    put(http)
    storage.outage("blackhole")
    with pytest.raises(httpx2.TimeoutException):
        http.get(PART, timeout=0.1)
    storage.end_outage()
    assert http.get(PART).status_code == 200


def test_an_outage_ends_by_itself_after_its_time() -> None:
    now = [0.0]
    faults = Faults(clock=lambda: now[0])
    faults.begin_outage(Outage(mode="reset", seconds=5))
    now[0] = 4.9
    assert faults.outage() == "reset"
    now[0] = 5.0
    assert faults.outage() is None


def test_a_control_request_that_makes_no_sense_is_explained(storage: StorageControl) -> None:
    with pytest.raises(ControlError, match="does not exist"):
        storage.corrupt("nowhere", "part")
    answer = httpx2.post(f"{storage.url}/_local/faults", json={"kind": "status", "often": 3}, trust_env=False)
    assert answer.status_code == 400 and "often: Extra inputs" in answer.text
    unknown = httpx2.get(f"{storage.url}/_local/thermostat", trust_env=False)
    assert unknown.status_code == 400 and "PUT /_local/throttle" in unknown.text
