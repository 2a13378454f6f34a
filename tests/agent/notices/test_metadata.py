"""What the agent promises of the metadata server's notices."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx2
import pytest
from structlog.testing import capture_logs

from agent.notices import Notices
from agent.notices.metadata import Machine, MetadataClient, MetadataError, is_on_gce
from infra.local.metadata import MetadataServer
from tests.agent.notices.conftest import both_hang, no_sleep, until, watching

PREEMPTED = "instance/preempted"


@contextmanager
def impostor(flavor: str | None) -> Iterator[str]:
    """A web server that answers TRUE to everything, as a proxy's error page would answer anything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            if flavor:
                self.send_header("Metadata-Flavor", flavor)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"TRUE")

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{http.server_address[1]}"
        finally:
            http.shutdown()
            thread.join()


def test_a_preemption_is_one_notice(server: MetadataServer) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(20), watching(server) as notices:
            await until(server, both_hang)
            before = notices.clock()
            server.set(PREEMPTED, "TRUE")
            notice = await notices.next()
            assert (notice.source, notice.cause, notice.detail) == ("metadata", "preempted", "TRUE")
            assert before <= notice.at <= notices.clock()
            await until(server, both_hang)  # it polls on
            answered = server.counts[200]
            server.fail_for(60)
            for value in ("FALSE", "TRUE"):  # changed, and yet the same when it is seen again
                server.set(PREEMPTED, value)
            server.fail_for(0)
            await until(server, lambda s: s.counts[200] > answered and both_hang(s))
            assert notices.waiting() == 0

    asyncio.run(scenario())


def test_a_vm_already_preempted_when_the_agent_starts_is_a_notice_at_once(server: MetadataServer) -> None:
    async def scenario() -> None:
        server.set(PREEMPTED, "TRUE")
        async with asyncio.timeout(20), watching(server) as notices:
            assert (await notices.next()).cause == "preempted"

    asyncio.run(scenario())


def test_each_maintenance_event_is_a_notice_and_its_end_is_none(server: MetadataServer) -> None:
    async def scenario() -> None:
        key = "instance/maintenance-event"

        async def calm_down(path: str) -> None:
            answered = server.counts[200]
            server.set(path, "NONE")
            await until(server, lambda s: s.counts[200] > answered and both_hang(s))

        async with asyncio.timeout(20), watching(server) as notices:
            await until(server, both_hang)
            for event in ("MIGRATE_ON_HOST_MAINTENANCE", "TERMINATE_ON_HOST_MAINTENANCE"):
                server.set(key, event)
                notice = await notices.next()
                assert (notice.source, notice.cause, notice.detail) == ("maintenance", "maintenance", event)
                await calm_down(key)
            assert notices.waiting() == 0

    asyncio.run(scenario())


def test_a_change_between_two_polls_is_not_missed(server: MetadataServer) -> None:
    """The value changes after an answer and before the next poll: only the ETag can tell the server."""

    async def scenario() -> None:
        async with (
            asyncio.timeout(10),  # less than a poll lasts: an answer by timeout_sec comes too late
            MetadataClient(server.host) as client,
            aclosing(client.watch(PREEMPTED)) as values,
        ):
            assert await anext(values) == "FALSE"
            server.set(PREEMPTED, "TRUE")  # no poll hangs now
            assert server.polls[PREEMPTED] == 0
            assert await anext(values) == "TRUE"

    asyncio.run(scenario())


def test_a_503_spell_does_not_hide_a_notice(server: MetadataServer) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(20), watching(server) as notices:
            await until(server, both_hang)
            server.fail_for(60)
            await until(server, lambda s: s.counts[503] >= 4)  # both polls were ended and came again
            server.set(PREEMPTED, "TRUE")
            assert notices.waiting() == 0
            server.fail_for(0)
            assert (await notices.next()).cause == "preempted"

    asyncio.run(scenario())


def test_a_server_that_restarts_on_its_port_is_found_again() -> None:
    async def scenario() -> None:
        first = MetadataServer().start()
        port = int(first.host.rpartition(":")[2])
        async with asyncio.timeout(20), watching(first) as notices:
            await until(first, both_hang)
            first.close()
            with MetadataServer(port=port) as second:
                await until(second, both_hang)
                second.set(PREEMPTED, "TRUE")
                assert (await notices.next()).cause == "preempted"

    asyncio.run(scenario())


def test_retries_pause_a_tenth_to_half_a_second_and_an_outage_is_told_once(server: MetadataServer) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 50:
            server.fail_for(0)

    async def scenario() -> None:
        server.fail_for(600)
        async with (
            asyncio.timeout(20),
            MetadataClient(server.host, sleep=pause) as client,
            aclosing(client.watch(PREEMPTED)) as values,
        ):
            assert await anext(values) == "FALSE"

    with capture_logs() as logs:
        asyncio.run(scenario())
    assert len(pauses) == 50
    assert all(0.1 <= pause <= 0.5 for pause in pauses)
    assert len(set(pauses)) > 10, "no jitter"
    assert [entry["event"] for entry in logs] == ["metadata_away", "metadata_back"]


@pytest.mark.parametrize("flavor", [None, "Other"])
def test_an_answer_without_the_flavor_header_is_not_believed(flavor: str | None) -> None:
    async def scenario(host: str) -> None:
        thrice = asyncio.Event()
        asked = 0

        async def count(_seconds: float) -> None:
            nonlocal asked
            asked += 1
            if asked == 3:
                thrice.set()
            await asyncio.sleep(0)

        async with asyncio.timeout(20), MetadataClient(host, sleep=count) as client:
            with pytest.raises(MetadataError, match="not the metadata server"):
                await client.get(PREEMPTED)
            async with aclosing(client.watch(PREEMPTED)) as values:
                answer = asyncio.ensure_future(anext(values))
                turned_down = asyncio.create_task(thrice.wait())
                await asyncio.wait([answer, turned_down], return_when=asyncio.FIRST_COMPLETED)
                assert not answer.done(), "believed an impostor"
                answer.cancel()
                await asyncio.wait([answer])

    with impostor(flavor) as host:
        asyncio.run(scenario(host))


def test_a_server_that_does_not_hold_polls_is_not_asked_in_a_tight_loop() -> None:
    pauses = 0

    async def count(_seconds: float) -> None:
        nonlocal pauses
        pauses += 1

    async def scenario(host: str) -> None:
        async with (
            asyncio.timeout(20),
            MetadataClient(host, sleep=count) as client,
            aclosing(client.watch(PREEMPTED)) as values,
        ):
            for _ in range(4):
                assert await anext(values) == "TRUE"

    with impostor("Google") as host:  # the right header, but neither ETag nor waiting
        asyncio.run(scenario(host))
    assert pauses == 3


def test_a_proxy_in_the_environment_is_gone_around(server: MetadataServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there

    async def scenario() -> str | None:
        async with MetadataClient(server.host) as client:
            return await client.get("instance/preempted")

    assert asyncio.run(scenario()) == "FALSE"


def test_the_machine_is_read_in_one_request() -> None:
    async def read(server: MetadataServer) -> Machine:
        async with MetadataClient(server.host) as client:
            return await client.machine()

    with MetadataServer(
        name="trainer-7", zone="europe-west4-a", instance_id=2**62 + 1, attributes={"run-file": "a: b\n"}
    ) as server:
        machine = asyncio.run(read(server))
        assert server.counts == {200: 1}
    assert (machine.name, machine.zone, machine.instance_id) == (
        "trainer-7",
        "europe-west4-a",
        str(2**62 + 1),
    )
    assert machine.scheduling["preemptible"] == "TRUE"
    assert machine.attributes["run-file"] == "a: b\n"


def test_an_absent_attribute_is_none_and_an_outage_an_error_that_says_so(server: MetadataServer) -> None:
    async def scenario() -> None:
        async with MetadataClient(server.host, sleep=no_sleep) as client:
            assert await client.get("instance/attributes/nothing") is None
            server.fail_for(60)
            with pytest.raises(MetadataError, match=r"instance/id: HTTP 503; gave up after 0\.2 s"):
                await client.get("instance/id", timeout=0.2)

    asyncio.run(scenario())


def test_off_gce_is_said_once_and_within_the_deadline(tmp_path: Path) -> None:
    class BlackHole(httpx2.AsyncBaseTransport):
        """Off GCE, packets to the link-local address go nowhere."""

        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            await asyncio.Event().wait()
            raise AssertionError

    async def scenario() -> bool:
        async with asyncio.timeout(20):
            return await is_on_gce(timeout=0.05, environ={}, product_name=tmp_path / "none", transport=BlackHole())

    with capture_logs() as logs:
        assert asyncio.run(scenario()) is False
    assert [entry["event"] for entry in logs] == ["metadata_absent"]


def test_on_gce_is_known_from_the_machines_product_name_even_while_the_server_is_away(
    tmp_path: Path,
) -> None:
    (tmp_path / "product_name").write_text("Google Compute Engine\n")
    assert asyncio.run(is_on_gce(timeout=0, environ={}, product_name=tmp_path / "product_name"))


def test_a_host_in_the_environment_is_believed_unasked(tmp_path: Path) -> None:
    environ = {"GCE_METADATA_HOST": "127.0.0.1:9"}
    assert asyncio.run(is_on_gce(timeout=0, environ=environ, product_name=tmp_path / "none"))


def test_notices_can_be_posted_from_any_thread_and_keep_the_time_they_were_seen() -> None:
    async def scenario() -> None:
        now = [5.0]
        notices = Notices(clock=lambda: now[0])
        taken = asyncio.create_task(notices.next())
        await asyncio.sleep(0)  # it waits now: a post must wake the loop from outside
        await asyncio.to_thread(notices.post, "drill", "drill", "from a thread")
        now[0] = 9.0
        notice = await asyncio.wait_for(taken, 10)
        assert (notice.source, notice.at, notice.detail) == ("drill", 5.0, "from a thread")

    asyncio.run(scenario(), debug=True)  # debug: asyncio itself objects to what is not thread-safe
