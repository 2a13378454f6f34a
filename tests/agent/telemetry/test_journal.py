"""What the agent promises of its journal."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from agent.telemetry import journal
from agent.telemetry.redaction import HIDDEN

pytestmark = pytest.mark.usefixtures("journal_as_before")

SECRETS = ["ya29.c.Kl-secret_1", "s3cretvalue", "hf_AbCdEfGhIjKlMnOpQrStUv", "hunter2"]


class Journald:
    """A datagram socket where journald's would be; `record()` decodes the native protocol as its spec says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(10)

    def record(self) -> dict[str, str]:
        data, descriptors, _, _ = socket.recv_fds(self.socket, 1 << 20, 1)
        for descriptor in descriptors:
            with os.fdopen(descriptor, "rb") as file:
                data = os.pread(file.fileno(), 1 << 26, 0)
        return self.decode(data)

    @staticmethod
    def decode(data: bytes) -> dict[str, str]:
        fields: dict[str, str] = {}
        stream = io.BytesIO(data)
        while line := stream.readline():
            name, equals, value = line.rstrip(b"\n").partition(b"=")
            if not equals:
                (length,) = struct.unpack("<Q", stream.read(8))
                value = stream.read(length)
                assert stream.read(1) == b"\n"
            assert name.decode() not in fields
            fields[name.decode()] = value.decode()
        return fields


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    server = Journald(tmp_path / "socket")
    journal.configure("journal", journal_socket=server.path, run_id="demo")
    with contextlib.closing(server.socket):
        yield server


def test_a_record_is_journald_fields_that_can_be_matched(journald: Journald) -> None:
    structlog.get_logger().warning("notice", source="metadata", step=41, late=True, **{"odd-key.1": 2.5, "_own": "x"})
    record = journald.record()
    assert record["MESSAGE"].startswith("notice ")
    assert "source=metadata" in record["MESSAGE"]
    del record["MESSAGE"]
    assert record == {
        "EVENT": "notice",
        "SOURCE": "metadata",
        "STEP": "41",
        "LATE": "true",
        "ODD_KEY_1": "2.5",
        "OWN": "x",  # journald drops fields with a leading underscore: they are its own
        "RUN_ID": "demo",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "spot-agent",
    }


@pytest.mark.parametrize(("level", "priority"), [("info", "6"), ("warning", "4"), ("error", "3"), ("critical", "2")])
def test_priorities_are_syslogs(journald: Journald, level: str, priority: str) -> None:
    getattr(structlog.get_logger(), level)("tick")
    assert journald.record()["PRIORITY"] == priority


def test_values_of_several_lines_arrive_whole(journald: Journald) -> None:
    output = "Traceback:\n  File x=1\n\nTIMEOUT=never\n"
    structlog.get_logger().info("trainer_ended", message=output, last_lines=output)
    record = journald.record()
    assert (record["MESSAGE"], record["LAST_LINES"]) == (output, output)
    assert "TIMEOUT" not in record


def test_the_wire_form_is_the_one_in_journalds_specification() -> None:
    """The example of systemd.io/JOURNAL_NATIVE_PROTOCOL."""
    expected = b"MESSAGE\n" + struct.pack("<Q", 11) + b"hello\nworld\n" + b"PRIORITY=6\n"
    assert journal.encode_fields([("MESSAGE", "hello\nworld"), ("PRIORITY", "6")]) == expected


def test_a_record_larger_than_a_datagram_arrives_too(journald: Journald) -> None:
    text = "line\n" * 400_000
    structlog.get_logger().info("big", message=text)
    assert journald.record()["MESSAGE"] == text


def test_context_and_bound_fields_reach_every_record_in_every_thread(journald: Journald) -> None:
    structlog.contextvars.bind_contextvars(attempt=3)
    try:
        structlog.get_logger().info("here")
    finally:
        structlog.contextvars.clear_contextvars()
    assert (record := journald.record())["ATTEMPT"] == "3"
    assert record["RUN_ID"] == "demo"
    thread = threading.Thread(target=structlog.get_logger().info, args=("there",))
    thread.start()
    thread.join()
    assert journald.record()["RUN_ID"] == "demo"


def test_a_journald_that_is_full_or_gone_never_stops_the_agent_and_the_loss_is_counted(tmp_path: Path) -> None:
    journal.configure("journal", journal_socket=tmp_path / "socket")
    log = structlog.get_logger()
    log.info("nobody listens")
    server = Journald(tmp_path / "socket")
    with contextlib.closing(server.socket):
        log.info("first")
        assert (record := server.record())["EVENT"] == "first"
        assert record["DROPPED"] == "1"
        for _ in range(2000):  # nobody reads: the queue fills up, and no call waits
            log.info("flood")
        read = 0
        server.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                server.record()
                read += 1
        log.info("after")
        assert int(server.record()["DROPPED"]) == 2000 - read > 0
        log.info("well again")
        assert "DROPPED" not in server.record()


@pytest.mark.parametrize("mode", ["journal", "json", "console"])
def test_no_secret_reaches_the_output(mode: journal.Mode, tmp_path: Path) -> None:
    log = structlog.get_logger()
    token, secret, hub, password = SECRETS

    def tell() -> None:
        log.info("request", authorization=secret, headers={"Authorization": f"Bearer {secret}", "Accept": "text"})
        log.info("text", message=f"GET /?alt=json Authorization: Bearer {secret}, then {token} ({hub})")
        log.info("answer", body=json.dumps({"access_token": secret, "expires_in": 5, "client_secret": secret}))
        log.info("answer", body=json.dumps(json.dumps({"refresh_token": secret})).encode())
        log.info("environment", env=[f"WANDB_API_KEY={secret}", f"HF_TOKEN={hub}", f"X=http://me:{password}@host/"])
        log.info("nested", credentials={"kind": {"value": secret}}, api_key=[secret], **{"proxy-authorization": secret})
        log.info("url", url=f"https://storage.googleapis.com/b/o?X-Goog-Signature={secret}&X-Goog-Credential={secret}")
        log.info("key", pem=f"-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n")
        log.info("object", error=ValueError(f"refused: token={secret}"), tokens={f"Bearer {secret}": 1})
        try:
            raise RuntimeError(f"401 for 'Bearer {secret}'")
        except RuntimeError:
            log.exception("failed")
        logging.getLogger("google.auth").warning("refresh with %s failed", token)
        log.info("event Bearer " + secret)

    output = collect(mode, tmp_path, tell)
    for each in SECRETS:
        assert each not in output
    assert output.count(HIDDEN) >= 12
    assert "RuntimeError" in output  # the rest of it is there
    assert "refresh with" in output


def test_what_is_no_secret_is_left_alone(tmp_path: Path) -> None:
    def tell() -> None:
        structlog.get_logger().info("rate", tokens_per_second=4096.5, tokens=7, tokenizer="bpe", message="basic tokens")

    record = json.loads(collect("json", tmp_path, tell))
    del record["time"]
    assert record == {
        "level": "info",
        "event": "rate",
        "tokens_per_second": 4096.5,
        "tokens": 7,
        "tokenizer": "bpe",
        "message": "basic tokens",
    }


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no")


class Endless(dict[str, Any]):
    def items(self) -> Any:
        raise KeyError("no")


@pytest.mark.parametrize("mode", ["journal", "json", "console"])
def test_values_that_cant_be_encoded_never_raise(mode: journal.Mode, tmp_path: Path) -> None:
    loop: list[Any] = []
    loop.append(loop)

    def tell() -> None:
        log = structlog.get_logger()
        log.info("odd", a=b"\xff\x00", b="\udcff lone", c=float("nan"), d=Unprintable(), e=Endless(a=1), f=loop)
        log.info("odd", g=object(), h={1: {2, 3}}, i=Path("/tmp"), j=memoryview(b"x"), k=None, l=2**80)
        logging.getLogger("library").warning("%d", "not a number")
        log.info("end")

    output = collect(mode, tmp_path, tell)
    assert "Unprintable: can't be shown" in output
    assert "end" in output
    if mode == "json":
        for line in output.splitlines():
            json.loads(line, parse_constant=pytest.fail)  # NaN is not JSON


def test_json_lines_are_one_object_each_with_the_time_first(tmp_path: Path) -> None:
    lines = collect("json", tmp_path, lambda: structlog.get_logger().info("a", message="two\nlines")).splitlines()
    assert len(lines) == 1
    record = json.loads(lines[0])
    assert list(record)[:3] == ["time", "level", "event"]
    assert record["time"].endswith("Z")


def test_a_reader_that_left_or_a_poor_terminal_never_raises() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "w", encoding="ascii") as stream:
        journal.configure("console", stream=stream)
        structlog.get_logger().info("schön", where="→")
    buffer = io.BytesIO()
    journal.configure("console", stream=io.TextIOWrapper(buffer, encoding="ascii", write_through=True))
    structlog.get_logger().info("schön", where="→")
    assert b"sch\\xf6n  where=\\u2192" in buffer.getvalue()


def test_auto_takes_the_journal_only_where_our_output_goes_there(tmp_path: Path) -> None:
    """JOURNAL_STREAM is inherited: a process whose output was redirected since must not be fooled by it."""
    program = "import agent.telemetry.journal as j; print(j.under_journald())"
    for names_it, expected in ((True, "True"), (False, "False")):
        with (tmp_path / "out").open("w+") as out:
            stat = os.fstat(out.fileno())
            env = {**os.environ, "JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino + (not names_it)}"}
            subprocess.run([sys.executable, "-c", program], stdout=out, env=env, check=True, timeout=60)
            assert (tmp_path / "out").read_text().strip() == expected
    buffer = io.StringIO()
    journal.configure("auto", stream=buffer)
    structlog.get_logger().info("piped")
    assert json.loads(buffer.getvalue())["event"] == "piped"


def collect(mode: journal.Mode, folder: Path, tell: Any) -> str:
    """What `tell` wrote, as one text."""
    if mode != "journal":
        buffer = io.StringIO()
        journal.configure(mode, stream=buffer)
        tell()
        return buffer.getvalue()
    server = Journald(folder / "socket")
    records: list[dict[str, str]] = []
    with contextlib.closing(server.socket):

        def read() -> None:
            while (record := server.record())["EVENT"] != "that was all":
                records.append(record)

        journal.configure("journal", journal_socket=server.path)
        structlog.get_config()["logger_factory"]()._socket.settimeout(10)  # here, let it wait for the reader
        thread = threading.Thread(target=read)
        thread.start()
        tell()
        structlog.get_logger().info("that was all")
        thread.join(20)
    return "\n".join(f"{name}={value}" for record in records for name, value in record.items())


def test_what_the_trainer_prints_is_told_apart_from_what_the_agent_says(journald: Journald) -> None:
    journal.configure("journal", journal_socket=journald.path)
    structlog.get_logger().info("trainer_output", message="loss 2.5")
    structlog.get_logger().info("committed", step=3)
    assert [journald.record()["SYSLOG_IDENTIFIER"] for _ in range(2)] == ["spot-trainer", "spot-agent"]
