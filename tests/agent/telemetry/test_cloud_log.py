"""The agent's journal is in Cloud Logging, whole and once, and nobody waits for that."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Any

import pytest
import structlog

from agent.notices.metadata import MetadataClient
from agent.telemetry import cloud_log as module
from agent.telemetry import journal
from agent.telemetry.cloud_log import CloudLog, CloudLogError, cloud_log, this_vm
from infra.local.cloud_logging import LARGEST_ENTRY, CloudLogging
from infra.local.metadata import MetadataServer

VM = "vm@p.iam.gserviceaccount.com"
PATIENCE_S = 10.0
log = structlog.get_logger()


@dataclass
class Cloud:
    logging: CloudLogging
    metadata: MetadataServer

    def inside(self, act: Callable[[], Coroutine[Any, Any, None]]) -> list[dict[str, Any]]:
        """Do `act` while what is logged is sent; returns the entries that Cloud Logging then has."""

        async def scenario() -> None:
            async with MetadataClient(self.metadata.host) as client, cloud_log(client):
                await act()

        asyncio.run(scenario())
        return self.logging.entries

    def told(self, *names: str) -> None:
        """Wait until these events are there."""
        there = self.logging.wait_for(
            lambda entries: set(names) <= {entry["jsonPayload"]["EVENT"] for entry in entries}, PATIENCE_S
        )
        assert there, events(self.logging.entries)


def events(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["jsonPayload"]["EVENT"] for entry in entries]


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, journal_as_before: None) -> Iterator[Cloud]:
    tokens: dict[str, str] = {}

    def mint(identity: str, _lifetime: float) -> str:
        tokens[f"token-{len(tokens)}"] = identity
        return f"token-{len(tokens) - 1}"

    monkeypatch.setattr(module, "_EVERY_S", 0.02)
    with (
        CloudLogging(identify=tokens.get, writers={VM}) as logging,
        MetadataServer(name="vm-1", service_account=VM, mint=mint) as metadata,
        open(os.devnull, "w") as nowhere,  # noqa: PTH123
    ):
        monkeypatch.setenv("SPOT_LOGGING_URL", logging.url)
        journal.configure("json", stream=nowhere, run_id="alpha")
        yield Cloud(logging, metadata)


def test_a_record_is_there_as_journald_has_it_with_the_vm_that_told_it(cloud: Cloud) -> None:
    async def act() -> None:
        log.warning("notice", source="metadata", cause="preempted", left_s=29.5)

    (entry,) = cloud.inside(act)
    assert entry["jsonPayload"] == {
        "EVENT": "notice",
        "SOURCE": "metadata",
        "CAUSE": "preempted",
        "LEFT_S": "29.5",
        "RUN_ID": "alpha",
        "MESSAGE": "notice run_id=alpha source=metadata cause=preempted left_s=29.5",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "spot-agent",
    }
    assert entry["severity"] == "WARNING"
    assert abs(datetime.fromisoformat(entry["timestamp"]).timestamp() - time.time()) < 60.0
    assert entry["logName"] == "projects/local-project/logs/spot-agent"
    labels = entry["resource"]["labels"]
    assert (entry["resource"]["type"], labels["project_id"]) == ("gce_instance", "local-project")
    assert labels["zone"].count("/") == 0
    assert labels["instance_id"].isdigit()


def test_what_is_logged_last_is_sent_before_the_end(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_EVERY_S", 3600.0)

    async def act() -> None:
        log.info("window_used", kind="preempted")

    assert events(cloud.inside(act)) == ["window_used"]


def test_records_of_all_threads_are_there_in_their_order(cloud: Cloud) -> None:
    async def act() -> None:
        def work() -> None:
            for number in range(200):
                log.info("trainer_output", message=f"line {number}")

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)

    entries = cloud.inside(act)
    assert len(entries) == 800
    assert {entry["jsonPayload"]["SYSLOG_IDENTIFIER"] for entry in entries} == {"spot-trainer"}


def test_an_outage_loses_nothing_and_is_told(cloud: Cloud) -> None:
    cloud.logging.fail_next(HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS)

    async def act() -> None:
        log.info("committed", step=1)
        await asyncio.to_thread(cloud.told, "committed", "cloud_log_away", "cloud_log_back")

    entries = cloud.inside(act)
    assert sorted(events(entries)) == ["cloud_log_away", "cloud_log_back", "committed"]
    (away,) = (entry["jsonPayload"] for entry in entries if entry["jsonPayload"]["EVENT"] == "cloud_log_away")
    assert "503" in away["REASON"]


def test_an_answer_that_is_lost_does_not_make_a_record_two(cloud: Cloud) -> None:
    cloud.logging.lose_answers(2)

    async def act() -> None:
        log.info("committed", step=1)
        await asyncio.to_thread(cloud.told, "committed", "cloud_log_back")

    assert events(cloud.inside(act)).count("committed") == 1
    assert cloud.logging.requests > 2


def test_who_may_not_write_is_told_so_once_and_goes_on(cloud: Cloud) -> None:
    cloud.logging.fail_next(*[HTTPStatus.FORBIDDEN] * 3)

    async def act() -> None:
        log.info("committed", step=1)
        await asyncio.to_thread(cloud.told, "committed", "cloud_log_back")

    assert events(cloud.inside(act)).count("cloud_log_away") == 1


def test_a_record_that_is_never_taken_holds_up_no_other(cloud: Cloud) -> None:
    cloud.logging.fail_next(HTTPStatus.BAD_REQUEST)

    async def act() -> None:
        log.info("protocol_error")
        await asyncio.sleep(0)
        while not cloud.logging.requests:  # noqa: ASYNC110 - another thread's
            await asyncio.sleep(0.005)
        log.info("committed", step=1)
        await asyncio.to_thread(cloud.told, "committed")

    assert "protocol_error" not in events(cloud.inside(act))


def test_a_long_line_is_cut_to_what_an_entry_may_hold(cloud: Cloud) -> None:
    async def act() -> None:
        log.info("trainer_output", message="\u20ac" * LARGEST_ENTRY)

    (entry,) = cloud.inside(act)
    assert set(entry["jsonPayload"]["MESSAGE"]) == {"\u20ac"}


def test_of_too_many_records_the_oldest_are_dropped_and_counted(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_QUEUED", 100)
    monkeypatch.setattr(module, "_EVERY_S", 3600.0)

    async def act() -> None:
        for number in range(150):
            log.info("trainer_output", message=f"line {number}")

    entries = cloud.inside(act)
    assert [entry["jsonPayload"]["MESSAGE"] for entry in entries] == [f"line {number}" for number in range(50, 150)]
    assert entries[0]["jsonPayload"]["DROPPED"] == "50"


def test_a_flood_of_output_pushes_out_nothing_that_the_agent_says_and_takes_bounded_memory(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_WAITING", 20_000)
    monkeypatch.setattr(module, "_EVERY_S", 3600.0)

    async def act() -> None:
        log.warning("notice", source="metadata", cause="preempted")
        for number in range(1000):
            log.info("trainer_output", message=f"{number}" * 100)

    entries = cloud.inside(act)
    assert events(entries)[0] == "notice"
    lines = [entry["jsonPayload"]["MESSAGE"] for entry in entries[1:]]
    assert sum(map(len, lines)) <= 20_000, "characters, not lines, are what memory is made of"
    assert lines[-1] == "999" * 100


def test_secrets_do_not_leave_the_vm(cloud: Cloud) -> None:
    async def act() -> None:
        log.warning("library", message="Authorization: Bearer ya29.c.Kl-secret_1")

    (entry,) = cloud.inside(act)
    assert "ya29" not in str(entry)


def test_nothing_is_sent_from_a_vm_whose_metadata_server_is_a_local_one(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPOT_LOGGING_URL")
    monkeypatch.setenv("GCE_METADATA_HOST", cloud.metadata.host)
    assert module.address() is None
    monkeypatch.delenv("GCE_METADATA_HOST")
    assert module.address() == "https://logging.googleapis.com"


def test_what_was_told_before_the_process_is_to_end_is_there_at_once(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_EVERY_S", 3600.0)

    async def scenario() -> None:
        async with MetadataClient(cloud.metadata.host) as client, cloud_log(client) as sender:
            assert sender is not None
            log.info("handover", step=7)
            await sender.send_last(PATIENCE_S)
            assert events(cloud.logging.entries) == ["handover"]

    asyncio.run(scenario())


def test_a_service_that_hangs_keeps_nobody_at_the_end(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CLOSING_S", 0.05)

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            base = f"http://127.0.0.1:{silent.getsockname()[1]}"
            async with MetadataClient(cloud.metadata.host) as client:
                sender = CloudLog(client.get, resource=partial(this_vm, client), base=base)
                sender.add({"event": "window_used"})
                await asyncio.wait_for(sender.close(), PATIENCE_S)

    asyncio.run(scenario())


def test_what_is_told_last_is_tried_again_until_its_deadline(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_EVERY_S", 3600.0)
    cloud.logging.fail_next(HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.BAD_GATEWAY)

    async def act() -> None:
        log.info("handover", step=7)

    assert "handover" in events(cloud.inside(act))


def test_a_request_that_hangs_does_not_keep_back_what_is_told_last(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And who stays after all, because a notice has come meanwhile, goes on telling."""

    async def scenario() -> None:
        async with MetadataClient(cloud.metadata.host) as client, cloud_log(client) as sender:
            assert sender is not None
            token, asked = client.get, asyncio.Event()

            async def hang(path: str) -> str | None:
                monkeypatch.setattr(sender, "_ask", token)
                asked.set()
                await asyncio.sleep(3600.0)
                return ""

            monkeypatch.setattr(sender, "_ask", hang)
            log.info("notice", source="drill")
            await asyncio.wait_for(asked.wait(), PATIENCE_S)
            log.info("handover", step=7)
            await sender.send_last(PATIENCE_S)
            assert events(cloud.logging.entries) == ["notice", "handover"]
            log.info("window", step=7)
            await asyncio.to_thread(cloud.told, "window")

    asyncio.run(scenario())


def test_what_is_said_while_the_metadata_server_is_away_is_sent_once_it_answers(cloud: Cloud) -> None:
    cloud.metadata.fail_for(3600.0)

    async def act() -> None:
        log.info("agent_started", vm="vm-1")
        assert await asyncio.to_thread(cloud.metadata.wait_for, lambda server: server.counts[503] > 0, PATIENCE_S)
        cloud.metadata.fail_for(0.0)
        await asyncio.to_thread(cloud.told, "agent_started")

    first, *_ = cloud.inside(act)
    assert first["jsonPayload"]["EVENT"] == "agent_started"
    assert first["resource"]["labels"]["instance_id"].isdigit()


def test_a_metadata_server_without_a_token_is_an_error_that_says_so(cloud: Cloud) -> None:
    async def scenario() -> None:
        async def nothing(_path: str) -> str:
            return "[]"

        async with MetadataClient(cloud.metadata.host) as client:
            sender = CloudLog(nothing, resource=partial(this_vm, client), base=cloud.logging.url)
            sender.add({"event": "window_used"})
            with pytest.raises(CloudLogError, match="no token"):
                await sender.flush()
            await sender.close()

    asyncio.run(scenario())
