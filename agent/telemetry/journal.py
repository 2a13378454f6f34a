"""The agent's journal: structlog records as journald fields, JSON lines or console lines.

    log = structlog.get_logger()
    log.warning("notice", source="metadata", cause="preempted", message="optional text for people")

Under journald each key is a field, so `journalctl -u spot-agent EVENT=notice CAUSE=preempted` finds it; what the
trainer prints has SYSLOG_IDENTIFIER=spot-trainer. `agent.config.events` lists all events with their fields. Writing
never waits and never raises: when journald can't take a record it is counted, and the next one carries `DROPPED=n`.
Secrets are taken out first (`agent.telemetry.redaction`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from agent.telemetry.redaction import redact

Mode = Literal["auto", "journal", "json", "console"]
JOURNAL_SOCKET = Path("/run/systemd/journal/socket")
IDENTIFIER = "spot-agent"
TRAINER = "spot-trainer"
_PRIORITIES = {"critical": 2, "error": 3, "exception": 3, "warning": 4, "info": 6, "debug": 7}
_others: list[Callable[[Mapping[str, Any]], None]] = []
_STAMPS = {
    "json": structlog.processors.TimeStamper("iso", utc=True, key="time"),
    "console": structlog.processors.TimeStamper("%H:%M:%S.%f", utc=False, key="time"),
}


def configure(
    mode: Mode = "auto",
    *,
    level: int = logging.INFO,
    stream: TextIO | None = None,
    journal_socket: Path = JOURNAL_SOCKET,
    **bound: object,
) -> None:
    """Set up structlog, and warnings of the standard library's logging, for the whole process.

    `auto` is the journal where our output goes there, else the console on a terminal, else JSON lines. `stream`
    (default: stdout) is where console and JSON go. `bound` fields are in every record, in all threads.
    """
    stream = stream or sys.stdout
    if mode == "auto":
        mode = "journal" if under_journald() else "console" if stream.isatty() else "json"

    def add_bound(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {**bound, **event}

    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        add_bound,
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,  # the plain traceback: no values of local variables
        redact,
        _tell_others,
    ]
    writer: JournalWriter | _StreamWriter
    if mode == "journal":
        writer = JournalWriter(journal_socket)
        processors.append(lambda _logger, _method, event: ((event,), {}))
    else:
        writer = _StreamWriter(stream)
        processors.append(_STAMPS[mode])
        processors.append(_json_line if mode == "json" else _console_line)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Bridge(logging.WARNING)], level=logging.WARNING, force=True)
    google = logging.getLogger("google")  # its libraries cut it off from the rest where nobody has configured it
    google.setLevel(logging.WARNING)
    google.propagate = True


@contextlib.contextmanager
def also(tell: Callable[[Mapping[str, Any]], None]) -> Iterator[None]:
    """Inside the block `tell` gets each record too, without its secrets, in the thread that logs it."""
    _others.append(tell)
    try:
        yield
    finally:
        _others.remove(tell)


def _tell_others(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for tell in _others:
        tell(event)
    return event


def under_journald() -> bool:
    """Whether stdout or stderr goes to journald: systemd names the stream's device and inode in JOURNAL_STREAM."""
    named = os.environ.get("JOURNAL_STREAM", "")
    for descriptor in (1, 2):
        try:
            stat = os.fstat(descriptor)
        except OSError:
            continue
        if named == f"{stat.st_dev}:{stat.st_ino}":
            return True
    return False


class JournalWriter:
    """Sends records to journald by its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL). Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._lock = threading.Lock()
        self._dropped = 0

    def msg(self, event: EventDict) -> None:
        with self._lock:
            extra = {"dropped": self._dropped} if self._dropped else {}
            try:
                self._send(encode_fields(journal_fields({**event, **extra})))
                self._dropped = 0
            except OSError:  # journald full or restarting: training matters more than this line
                self._dropped += 1

    debug = info = warning = error = critical = exception = log = msg

    def _send(self, datagram: bytes) -> None:
        try:
            self._socket.sendto(datagram, self._path)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            # Too big for a datagram: journald takes a sealed memory file instead.
            file = os.memfd_create("journal-record", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
            try:
                os.write(file, datagram)
                seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
                fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, file.to_bytes(4, sys.byteorder))
                self._socket.sendmsg([], [rights], 0, self._path)
            finally:
                os.close(file)


def journal_fields(event: EventDict) -> list[tuple[str, str]]:
    """A record as journald's fields: EVENT, MESSAGE for people, PRIORITY (syslog's), and one for each other key."""
    shown = {key: value for key, value in event.items() if key not in ("event", "level", "message", "exception")}
    told = " ".join(f"{key}={_plain(value)}" for key, value in shown.items())
    message = _plain(event.get("message") or " ".join(filter(None, (_plain(event.get("event")), told))))
    own = {
        "MESSAGE": message,
        "PRIORITY": str(_PRIORITIES.get(str(event.get("level")), 6)),
        "SYSLOG_IDENTIFIER": TRAINER if event.get("event") == "trainer_output" else IDENTIFIER,
    }
    fields: dict[str, str] = {
        _field_name(key): _plain(value) for key, value in event.items() if value is not None and key != "level"
    }
    return list({**fields, **own}.items())


def encode_fields(fields: Iterable[tuple[str, str]]) -> bytes:
    """Journald's wire form: `NAME=value`, or for values of several lines the name, a 64-bit length and the bytes."""
    parts: list[bytes] = []
    for name, value in fields:
        data = value.encode(errors="backslashreplace")
        if b"\n" in data:
            parts += (name.encode(), b"\n", len(data).to_bytes(8, "little"), data, b"\n")
        else:
            parts += (name.encode(), b"=", data, b"\n")
    return b"".join(parts)


def _field_name(key: str) -> str:
    """Journald takes A-Z, 0-9 and _, up to 64, and drops fields that begin with _ or a digit."""
    return re.sub(r"[^A-Z0-9_]", "_", key.upper()).lstrip("_0123456789")[:64] or "FIELD"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


class _StreamWriter:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        encoding = self._stream.encoding or "utf-8"
        try:
            self._stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass  # the reader left or the stream is closed: no reason to stop a training run

    debug = info = warning = error = critical = exception = log = msg


def _json_line(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    first = {key: event.pop(key) for key in ("time", "level", "event") if key in event}
    return json.dumps({**first, **event})


def _console_line(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """`12:00:01.250 warning notice  source=metadata cause=preempted`, then the message's and traceback's lines."""
    time, level, name = (str(event.pop(key, "")) for key in ("time", "level", "event"))
    tail = [_plain(event.pop(key)) for key in ("message", "exception") if key in event]
    mark = "" if level == "info" else f"{level} "
    told = " ".join(f"{key}={_plain(value)}" for key, value in event.items())
    return "\n    ".join([f"{time[:12]} {mark}{name}  {told}".rstrip(), *"\n".join(tail).splitlines()])


class _Bridge(logging.Handler):
    """Warnings of other libraries become records too, and lose their secrets on the way."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that don't fit their format
            text = str(record.msg)
        tell = structlog.get_logger().error if record.levelno >= logging.ERROR else structlog.get_logger().warning
        tell("library", logger=record.name, message=text, exc_info=record.exc_info)
