"""What the agent promises those who ask it over HTTP, and that it costs little."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.telemetry.health import Health


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock, tmp_path: Path) -> Iterator[Health]:
    health = Health(state_dir=tmp_path, stale_after=60, clock=clock)
    yield health
    health.close()


@pytest.fixture
def port(health: Health) -> int:
    return health.serve(0, host="127.0.0.1")


def ask(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def metrics(port: int) -> dict[tuple[str, str], float]:
    """(name, first label's value) -> value, as Prometheus' own parser reads it."""
    status, text = ask(port, "/metrics")
    assert status == 200
    families = text_string_to_metric_families(text)
    return {(s.name, next(iter(s.labels.values()), "")): s.value for family in families for s in family.samples}


def test_healthy_only_once_the_trainer_is_restored_and_stepping(health: Health, port: int) -> None:
    def state() -> tuple[int, bool]:
        status, body = ask(port, "/healthz")
        return status, json.loads(body)["healthy"]

    assert state() == (503, False)
    health.set_trainer(running=True, stepping=False)
    assert state() == (503, False)
    health.set_step(40)  # a restored step number alone is no progress
    assert state() == (503, False)
    health.set_trainer(running=True, stepping=True)
    assert state() == (200, True)
    health.set_trainer(running=False, stepping=True)
    assert state() == (503, False)


def test_a_503_says_why(health: Health, port: int) -> None:
    reasons = [json.loads(ask(port, "/healthz")[1])["reason"]]
    for running in (True, False):
        health.set_trainer(running=running, stepping=False)
        reasons.append(json.loads(ask(port, "/healthz")[1])["reason"])
    health.set_trainer(running=True, stepping=False, why="waiting for the bucket")
    reasons.append(json.loads(ask(port, "/healthz")[1])["reason"])
    assert reasons == [
        "the agent is starting",
        "the trainer is starting or restoring",
        "no trainer is running",
        "waiting for the bucket",
    ]


def test_a_trainer_without_a_heartbeat_is_not_healthy_until_it_steps_again(
    health: Health, port: int, clock: Clock
) -> None:
    health.set_trainer(running=True, stepping=True)
    health.set_step(7)
    clock.now += 60
    assert ask(port, "/healthz")[0] == 200
    clock.now += 1
    status, body = ask(port, "/healthz")
    assert (status, json.loads(body)["reason"]) == (503, "no step for 61 s, more than 60 s")
    health.set_step(8)
    assert ask(port, "/healthz")[0] == 200


def test_a_phase_without_steps_is_healthy_within_its_limit_once_a_trainer_has_stepped_here(
    health: Health, clock: Clock
) -> None:
    """An evaluation, or a restore after a crash, that outlasts the heartbeat's limit had the VM replaced."""
    health.set_trainer(running=True, stepping=False)
    health.set_phase("starting", limit_s=3600)
    assert health.why_unhealthy() == "the trainer is starting or restoring"
    health.set_trainer(running=True, stepping=True)
    health.set_phase("evaluating", limit_s=600)
    clock.now += 600
    assert health.why_unhealthy() == ""
    clock.now += 1
    assert health.why_unhealthy() == "evaluating for 601 s, more than 600 s"
    health.set_phase("training")
    assert health.why_unhealthy() == "no step for 601 s, more than 60 s"
    health.set_step(8)
    assert health.why_unhealthy() == ""
    health.set_trainer(running=False, stepping=False)
    assert health.why_unhealthy() == "no trainer is running"
    health.set_trainer(running=True, stepping=False)
    health.set_phase("restoring", limit_s=300)
    clock.now += 300
    assert health.why_unhealthy() == ""


def test_metrics_are_what_happened(health: Health, port: int, clock: Clock) -> None:
    health.set_step(120)
    health.observe_commit(100, stage_s=0.15, durable_s=4.0, size=1_000_000)
    health.observe_commit(120, stage_s=0.25, durable_s=6.0, size=500_000)
    health.observe_restore(120, 3.0)
    for cause in ("preempted", "preempted", "maintenance"):
        health.count_notice(cause)
    health.count_incident("power_cut")
    health.count_restart("crash")
    clock.now += 2.5
    seen = metrics(port)
    expected = {
        ("spot_step", ""): 120,
        ("spot_committed_step", ""): 120,
        ("spot_notices_total", "preempted"): 2,
        ("spot_notices_total", "maintenance"): 1,
        ("spot_incidents_total", "power_cut"): 1,
        ("spot_restarts_total", "crash"): 1,
        ("spot_uploaded_bytes_total", ""): 1_500_000,
        ("spot_stage_seconds_sum", ""): 0.4,
        ("spot_stage_seconds_count", ""): 2,
        ("spot_stage_seconds_bucket", "0.2"): 1,
        ("spot_durable_seconds_sum", ""): 10,
        ("spot_restore_seconds_count", ""): 1,
        ("spot_heartbeat_age_seconds", ""): 2.5,
        ("spot_healthy", ""): 0,
    }
    assert {key: seen[key] for key in expected} == pytest.approx(expected)
    health.set_trainer(running=True, stepping=True)
    assert metrics(port)[("spot_healthy", "")] == 1


def test_the_machines_facts_are_in_the_metrics(port: int) -> None:
    seen = metrics(port)
    assert 1e6 < seen[("spot_agent_private_bytes", "")] < seen[("spot_memory_bytes", "")]
    for name in ("memory_available", "state_disk_free", "shm_disk_free"):
        assert seen[(f"spot_{name}_bytes", "")] > 0
    assert ("spot_network_sent_bytes_total", "") in seen


def test_another_path_is_404_and_a_silent_client_holds_nobody_up(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)):
        assert ask(port, "/")[0] == 404


def test_a_taken_port_is_an_error_that_names_it_and_the_way_out(port: int) -> None:
    with pytest.raises(OSError, match="in use") as caught:
        Health().serve(port, host="127.0.0.1")
    assert str(port) in caught.value.__notes__[0]
    assert "another port" in caught.value.__notes__[0]


def test_setters_may_be_called_from_many_threads(health: Health, port: int) -> None:
    def work() -> None:
        for _ in range(1000):
            health.count_notice("drill")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics(port)[("spot_notices_total", "drill")] == 4000


def test_it_costs_less_than_four_megabytes() -> None:
    program = """
import asyncio, http.server, pathlib, psutil, sys, urllib.request
before = psutil.Process().memory_full_info().uss
from agent.telemetry.health import Health
health = Health()
port = health.serve(0, host="127.0.0.1")
for _ in range(20):
    urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20).read()
print(psutil.Process().memory_full_info().uss - before)
"""
    env = {**os.environ, "no_proxy": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) < 4e6
