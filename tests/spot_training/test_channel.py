"""What the socket between agent and trainer promises: every message once, in order, with its own descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spot_training.protocol.channel import AsyncConnection, Closed, Connection, _frame, _Reader, listen
from spot_training.protocol.messages import (
    _TYPES,
    Arenas,
    Committed,
    Heartbeat,
    Line,
    Phase,
    ProtocolError,
    Save,
    Welcome,
    from_json,
    to_json,
)

PATIENCE_S = 10.0

MESSAGES = st.lists(
    st.builds(Heartbeat, st.integers(0, 1 << 40), st.booleans(), st.sampled_from(get_args(Phase)))
    | st.builds(Line, st.integers(0, 9), st.dictionaries(st.text(), st.floats(allow_nan=False), max_size=2))
    | st.integers(0, 3).map(lambda count: Arenas(0, [None] * count, count)),
    max_size=8,
)


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    ours, theirs = socket.socketpair()
    connection = Connection(ours)
    yield connection, theirs
    connection.close()
    theirs.close()


def marked() -> int:
    """A descriptor of a file of its own, to write a mark into."""
    return os.memfd_create("marked", os.MFD_CLOEXEC)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_every_kind_of_message_comes_back_as_it_was() -> None:
    samples = {
        "int": 3,
        "str": "x",
        "bool": True,
        "float": 0.5,
        "dict[str, Any]": {"a": [1, None]},
        "list[bool]": [True],
    }
    for kind in _TYPES.values():
        values = {}
        for spec in dataclasses.fields(kind):
            name = str(spec.type).removesuffix(" | None")
            values[spec.name] = samples.get(name, "cadence" if name == "SaveReason" else [None])
        message = kind(**values)
        assert from_json(to_json(message)) == message


@settings(max_examples=60, deadline=None)
@given(messages=MESSAGES, cuts=st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_messages_split_and_merged_in_any_way_arrive_once_each_and_in_order(
    messages: list[Any], cuts: list[int]
) -> None:
    stream = b"".join(_frame(message) for message in messages)
    fds = list(range(1000, 1000 + sum(getattr(message, "fds", 0) for message in messages)))
    reader = _Reader()
    found: list[tuple[Any, list[int]]] = []
    at = turn = 0
    sent_fds = 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        ending = at + size
        # The kernel hands descriptors over with the first byte of what was sent with them, at the latest.
        due = sum(
            getattr(m, "fds", 0) for i, m in enumerate(messages) if len(b"".join(map(_frame, messages[:i]))) < ending
        )
        found += reader.feed(stream[at:ending], fds[sent_fds:due])
        at, sent_fds, turn = ending, due, turn + 1
    assert [message for message, _ in found] == messages
    assert [fd for _, own in found for fd in own] == fds
    assert [len(own) for _, own in found] == [getattr(message, "fds", 0) for message in messages]


def test_descriptors_arrive_with_their_own_message_and_are_not_inherited(
    pair: tuple[Connection, socket.socket],
) -> None:
    connection, raw = pair
    sender = Connection(raw.dup())
    for number in range(5):
        fds = [marked() for _ in range(number % 3)]
        for fd in fds:
            os.write(fd, bytes([number]))
        sender.send(Arenas(number, [None] * len(fds), len(fds)), fds)
        for fd in fds:
            os.close(fd)
        sender.send(Heartbeat(number))
    sender.close()
    for number in range(5):
        message, fds = connection.receive(timeout=PATIENCE_S)
        assert message == Arenas(number, [None] * (number % 3), number % 3)
        assert [os.pread(fd, 9, 0) for fd in fds] == [bytes([number])] * (number % 3)
        assert not any(os.get_inheritable(fd) for fd in fds)
        for fd in fds:
            os.close(fd)
        assert connection.receive(timeout=PATIENCE_S) == (Heartbeat(number), [])
    with pytest.raises(Closed):
        connection.receive(timeout=PATIENCE_S)


GARBAGE = [
    b"\x00\x00\x00\x05hello",
    b"\x00\x00\x00\x02{}",
    b"\x00\x00\x00\x02[]",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00",
    b"\x00\x00\x00\x04\xff\xfe\xfd\xfc",
    b"\x00\x03\x0d\x40" + b"[" * 200_000,
    *(
        len(raw).to_bytes(4, "big") + raw
        for raw in (
            b'{"type":"Nonsense"}',
            b'{"type":["Heartbeat"]}',
            b'{"type":"Heartbeat"}',
            b'{"type":"Heartbeat","step":1,"color":"red"}',
            b'{"type":"Arenas","keep":0,"staged":[],"fds":1}',  # and none comes
            b'{"type":"Arenas","keep":0,"staged":[],"fds":-1}',
            b'{"type":"Arenas","keep":0,"staged":[],"fds":"two"}',
        )
    ),
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda raw: repr(raw[:40]))
def test_garbage_is_a_protocol_error_after_the_good_messages_before_it(
    pair: tuple[Connection, socket.socket], garbage: bytes
) -> None:
    connection, raw = pair
    raw.sendall(_frame(Heartbeat(7)) + garbage + _frame(Heartbeat(8)))
    raw.shutdown(socket.SHUT_WR)
    assert connection.receive(timeout=PATIENCE_S) == (Heartbeat(7), [])
    for _ in range(2):  # nothing after it can be understood, however often one asks
        with pytest.raises(ProtocolError):
            connection.receive(timeout=PATIENCE_S)


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda raw: repr(raw[:40]))
def test_the_agents_side_takes_garbage_the_same_way(garbage: bytes) -> None:
    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        connection = AsyncConnection(ours)
        await asyncio.to_thread(theirs.sendall, _frame(Heartbeat(7)) + garbage)
        assert await connection.receive() == (Heartbeat(7), [])
        theirs.close()
        for _ in range(2):
            with pytest.raises(ProtocolError):
                await connection.receive()
        connection.close()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


def test_receiving_ends_after_its_timeout_and_loses_nothing(pair: tuple[Connection, socket.socket]) -> None:
    connection, raw = pair
    frame = _frame(Heartbeat(7))
    raw.sendall(frame[:5])
    with pytest.raises(TimeoutError):
        connection.receive(timeout=0.01)
    raw.sendall(frame[5:])
    assert connection.receive(timeout=PATIENCE_S) == (Heartbeat(7), [])


def test_both_sides_speak_over_a_socket_with_a_path_longer_than_a_unix_address(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 20) / ("er" * 40)
    folder.mkdir(parents=True)
    path = folder / "agent.sock"
    assert len(str(path)) > 108
    large = Line(1, {"text": "x" * 3_000_000})  # more than a socket buffer holds

    async def scenario() -> None:
        heard: list[Any] = []

        async def serve(connection: AsyncConnection) -> None:
            message, _ = await connection.receive()
            heard.append(message)
            fd = marked()
            os.write(fd, b"shared")
            welcome = Welcome(1, [False], 0, 5, {"big": "y" * 3_000_000}, None, None, 1)
            await connection.send(welcome, [fd])
            os.close(fd)
            await connection.send(Committed(0, 5))
            await connection.receive()

        stop = await listen(path, serve)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

        def trainer() -> tuple[Any, bytes, Any]:
            connection = Connection.open(path, timeout=PATIENCE_S)
            connection.send(large)
            welcome, fds = connection.receive(timeout=PATIENCE_S)
            content = os.pread(fds[0], 9, 0)
            os.close(fds[0])
            committed, _ = connection.receive(timeout=PATIENCE_S)
            connection.close()
            return welcome, content, committed

        welcome, content, committed = await asyncio.to_thread(trainer)
        assert heard == [large]
        assert (welcome.step, len(welcome.state["big"]), content, committed) == (
            5,
            3_000_000,
            b"shared",
            Committed(0, 5),
        )
        await stop()
        assert not path.exists()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


def test_a_message_with_descriptors_waits_for_room_in_the_socket() -> None:
    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        connection, reader = AsyncConnection(ours), Connection(theirs)
        filled = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.send(_frame(Heartbeat(filled)))
                filled += 1
        fd = marked()
        sending = asyncio.create_task(connection.send(Arenas(0, [None], 1), [fd]))
        await asyncio.sleep(0)
        assert not sending.done()
        received = [await asyncio.to_thread(reader.receive, timeout=PATIENCE_S) for _ in range(filled + 1)]
        await sending
        assert [message for message, _ in received] == [*map(Heartbeat, range(filled)), Arenas(0, [None], 1)]
        for each in (fd, *received[-1][1]):
            os.close(each)
        connection.close()
        reader.close()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


def test_sending_to_a_side_that_is_gone_says_so(pair: tuple[Connection, socket.socket]) -> None:
    connection, raw = pair
    raw.close()
    with pytest.raises(Closed):
        for _ in range(2):
            connection.send(Save("cadence"))

    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        agent_side = AsyncConnection(ours)
        theirs.close()
        with pytest.raises(Closed):
            await agent_side.receive()
        with pytest.raises(Closed):
            for _ in range(2):
                await agent_side.send(Committed(0, 1))
        agent_side.close()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


def test_descriptors_that_nobody_took_are_closed_with_the_connection() -> None:
    before = open_files()
    ours, theirs = socket.socketpair()
    connection, sender = Connection(ours), Connection(theirs)
    fd = marked()
    frame = _frame(Arenas(0, [None], 1))
    socket.send_fds(theirs, [frame[:9]], [fd])
    os.close(fd)
    with pytest.raises(TimeoutError):
        connection.receive(timeout=0.01)
    connection.close()
    sender.close()
    assert open_files() == before


def test_nobody_listening_is_an_os_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        Connection.open(tmp_path / "nobody.sock", timeout=PATIENCE_S)
