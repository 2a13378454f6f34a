"""A metadata server that is away while a VM boots costs nothing for good; a watch of it that has died is not hidden."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.local.cloud_logging import CloudLogging
from tests.promises.world import World, incidents

PATIENCE_S = 20.0
FOR_GOOD_S = 3600.0
VM = "vm@p.iam.gserviceaccount.com"


@pytest.fixture
def logging() -> Iterator[CloudLogging]:
    with CloudLogging(identify=lambda token: VM if token else None, writers={VM}) as logging:
        yield logging


def said(entries: list[dict[str, Any]], *names: str) -> bool:
    return {*names} <= {entry["jsonPayload"]["EVENT"] for entry in entries}


@pytest.mark.slow
def test_a_metadata_server_that_is_away_at_boot_costs_nothing_for_good(world: World, logging: CloudLogging) -> None:
    """Name, zone, length of the notice, the notice itself, Cloud Logging from the first record to the last."""
    env = {"SPOT_LOGGING_URL": logging.url, "NOTIFY_SOCKET": "@nobody"}
    with world.fleet(steps=100_000, env=env) as fleet:
        vm = fleet.boot("late", {"spot-notice": "90 s"}, metadata_away_s=FOR_GOOD_S)
        fleet.wait_event("machine_unknown", timeout=PATIENCE_S)
        vm.metadata.fail_for(0.0)
        known = fleet.wait_event("machine_known", timeout=PATIENCE_S).values
        assert (known["vm"], known["notice_s"]) == ("late", 90.0)
        assert logging.wait_for(lambda entries: said(entries, "agent_started", "machine_known"), PATIENCE_S)
        fleet.wait_event("resumed", timeout=PATIENCE_S)
        os.kill(vm.process.pid, signal.SIGHUP)  # a newer version takes over: this one's last words are there too
        assert vm.wait_down(PATIENCE_S)
        assert said(logging.entries, "handover")

        vm.metadata.fail_for(FOR_GOOD_S)
        restarted = time.monotonic()
        vm.restart_agent()
        fleet.wait_event("trainer_adopted", timeout=PATIENCE_S, since=restarted)
        vm.metadata.fail_for(0.0)
        fleet.wait_event("machine_known", timeout=PATIENCE_S, since=restarted)
        given = vm.give_notice()
        assert fleet.wait_event("window", timeout=PATIENCE_S, since=given).values["warning_s"] == 90.0
        vm.press_power_button()
        assert vm.wait_down(PATIENCE_S)
        (incident,) = incidents(fleet, world.store(fleet))
        assert (incident["vm"], incident["kind"]) == ("late", "preempted")
        assert said(logging.entries, "notice", "window_used")
        labels = [entry["resource"]["labels"] for entry in logging.entries]
        assert {(of["zone"], of["project_id"]) for of in labels} == {("us-central1-a", "local-project")}


@pytest.mark.slow
def test_an_agent_whose_watch_of_the_metadata_server_has_died_is_fed_to_no_watchdog(
    world: World, tmp_path: Path
) -> None:
    """systemd aborts it then, and the agent that it starts next watches again."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}  # a sign of life each 0.1 s
        with world.fleet(steps=100_000, env=env) as fleet:
            fleet.command = [part.replace("agent_with", "agent_deaf") for part in fleet.command]
            vm = fleet.boot()
            assert signs_of_life(systemd, patience_s=PATIENCE_S, enough=5) == 5
            vm.metadata.set("instance/maintenance-event", "BREAK")
            fleet.wait_event("notice", timeout=PATIENCE_S)
            assert signs_of_life(systemd, patience_s=0.5, enough=20) < 20, "fed though its watch has died"
            assert vm.process.poll() is None
            died = fleet.wait_event("watcher_died", timeout=PATIENCE_S).values
            assert "nobody expects" in died["error"]


@pytest.mark.slow
def test_an_agent_that_ends_by_a_fault_of_its_own_has_said_so_in_cloud_logging(
    world: World, logging: CloudLogging
) -> None:
    env = {"SPOT_LOGGING_URL": logging.url, "SPOT_TEST_FAULT": "1"}
    with world.fleet(steps=100_000, env=env) as fleet:
        fleet.command = [part.replace("agent_with", "agent_deaf") for part in fleet.command]
        vm = fleet.boot()
        assert vm.wait_down(PATIENCE_S)
        assert vm.process.returncode == 1
        (failed,) = [one["jsonPayload"] for one in logging.entries if one["jsonPayload"]["EVENT"] == "agent_failed"]
        assert "nobody expects" in failed["ERROR"]
        assert "Traceback" in failed["EXCEPTION"]


def signs_of_life(systemd: socket.socket, *, patience_s: float, enough: int) -> int:
    """How many come, one after the other, until none does for so long, or there are `enough`."""
    systemd.settimeout(patience_s)
    seen = 0
    while seen < enough:
        try:
            seen += b"WATCHDOG=1" in systemd.recv(4096)
        except TimeoutError:
            break
    return seen
