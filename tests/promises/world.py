"""A world to interrupt: real storage, real metadata server, the real agent, and the toy trainer."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.store import Store, open_store
from agent.trainer.host import SOCKET
from infra.local.bucket import RunRecords
from infra.local.fleet import Fleet
from infra.local.storage.control import StorageControl
from infra.local.vm import VmError

ROOT = Path(__file__).parents[2]
RUN = """
run_id: {run_id}
model: {{config: {{model_type: qwen3}}}}
data: {{source: stdlib, tokenizer: {{train_vocab_size: 512}}}}
training: {{global_batch: 8, micro_batch: 8, max_steps: {steps}}}
checkpoint: {{bucket: "{bucket}", every: "{every}", keep: {keep}, milestone_every: {milestone}}}
machine: {{notice: "{notice}", shutdown_window: "{window}", hourly_usd: {hourly_usd}}}
tracking: {tracking}
supervision:
  {{hang_timeout: "{hang}", crash_limit: {crash_limit}, stop_grace: "1 s", max_cost: {max_cost}, spike: {spike}}}
stages: {stages}
"""


@dataclass
class World:
    """Makes fleets that train the toy, and reads what they left."""

    storage: StorageControl
    folder: Path
    monkeypatch: pytest.MonkeyPatch

    @contextmanager
    def fleet(self, *, env: dict[str, str] | None = None, **changes: Any) -> Iterator[Fleet]:
        """A fleet with one run file; `changes` are its values, see RUN."""
        run_id = f"toy-{uuid.uuid4().hex[:8]}"
        values = {
            "run_id": run_id, "steps": 12, "bucket": "gs://demo/runs", "every": "4 steps", "keep": 2,
            "milestone": "null", "notice": "0 s", "window": "30 s", "hang": "10 min", "crash_limit": 3,
            "hourly_usd": "null", "max_cost": "null", "spike": "null", "stages": "[]", "tracking": "null",
        } | changes  # fmt: skip
        run_file = self.folder / f"{run_id}.yaml"
        run_file.write_text(RUN.format(**values))
        toy = [sys.executable, "-m", "tests.promises.toy", str(run_file)]
        disk = self.folder / run_id
        command = [sys.executable, "-m", "tests.promises.agent_with", str(run_file), *toy]
        environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(env or {})}
        fleet = Fleet(run_id, command, disk, self.storage, environment, boot_delay_s=0.0)
        self.monkeypatch.setenv("STORAGE_EMULATOR_HOST", self.storage.url)
        self.monkeypatch.setenv("NO_GCE_CHECK", "true")
        with fleet:
            yield fleet

    def store(self, fleet: Fleet) -> Store:
        return open_store(f"gs://demo/runs/{fleet.name}")

    def outcome(self, fleet: Fleet) -> dict[str, Any]:
        """What must be equal to the uninterrupted run's: losses, learning rates and every bit of the final state."""
        records = RunRecords(self.store(fleet))
        lines = [{key: line[key] for key in ("step", "loss", "lr")} for line in records.metrics()]
        return {"lines": lines, "result": records.result()}

    def finish(self, fleet: Fleet, *, timeout: float = 60.0) -> dict[str, Any]:
        """Let the present VM train to the end."""
        if fleet.wait_off(timeout) != 0:
            raise VmError("\n".join(str(event.values) for event in fleet.events[-8:]))
        return self.outcome(fleet)


def incidents(fleet: Fleet, store: Store) -> list[dict[str, Any]]:
    return [record for record in RunRecords(store).records() if record["record"] == "incident"]


def release(fleet: Fleet, phase: str, step: int) -> None:
    """Let the toy on the present VM go on from its pause."""
    (fleet.vm.disk / f"in-{phase}-{step}").write_text("go on")


def wait_for_hello(fleet: Fleet, timeout: float = 30.0) -> None:
    """Until the trainer has connected: the kernel knows, whatever the agent says."""
    deadline = time.monotonic() + timeout
    agent = psutil.Process(fleet.vm.process.pid)
    while sum(str(one.laddr).endswith(SOCKET) for one in agent.net_connections("unix")) < 2:
        if time.monotonic() > deadline:
            raise VmError(f"no trainer has said hello on {fleet.vm.mark}")
        time.sleep(0.05)


def wait_for_faults(world: World, timeout: float = 30.0) -> None:
    """Until a request has met each fault that was set."""
    deadline = time.monotonic() + timeout
    while world.storage.pending_faults():
        if time.monotonic() > deadline:
            raise VmError(f"nobody has met {world.storage.pending_faults()}")
        time.sleep(0.02)


def wait_for_file(fleet: Fleet, path: Path, timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not path.exists():
        if time.monotonic() > deadline or fleet.vm.process.poll() is not None:
            raise VmError(f"{path} did not appear; the journal ends with {[e.values for e in fleet.events[-5:]]}")
        time.sleep(0.005)
