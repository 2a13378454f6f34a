"""Rig: a local VM under the real agent, with a trainer that obeys; what saving and restoring are measured on.

Both sides use the same tensors of the same process, the same storage server and the same moment of a step.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from pathlib import Path
from typing import Any

from spot_training.protocol.channel import Connection as AgentConnection
from spot_training.protocol.messages import Drill, DrillReport

from agent.checkpoint.bucket import Checkpoints
from agent.checkpoint.restore import fetch_newest
from agent.store import Store, open_store
from agent.store.names import ROLLING
from infra.bench.figures import BenchError
from infra.local.fleet import Fleet, closing_on_signals
from infra.local.storage.control import StorageControl

BUCKET = "bench"
_RUN_ID = "bench"
_START_S = 60.0
_PATIENCE_S = 300.0
_RUN = f"""\
run_id: {_RUN_ID}
model: {{config: {{model_type: qwen3}}}}
data: {{source: stdlib, tokenizer: {{train_vocab_size: 512}}}}
training: {{global_batch: 8, micro_batch: 8, max_steps: 1000000}}
checkpoint: {{bucket: "gs://{BUCKET}", every: "1000000 steps", keep: 1}}
machine: {{provisioning: standard, shutdown_window: "120 s"}}
# Freed tensors stay with the trainer, so that neither side's next ones depend on how fast the host gives memory.
workload: {{env: {{MALLOC_TRIM_THRESHOLD_: "{1 << 40}", MALLOC_MMAP_THRESHOLD_: "{32 << 20}"}}}}
"""


@dataclass
class Rig:
    """Saves and restores when told to, each side by its own means; all times in seconds."""

    fleet: Fleet
    orders: Connection
    store: Store

    def ask(self, name: str, *arguments: Any) -> Any:
        """Give the trainer an order and return its answer."""
        self.orders.send((name, arguments))
        return self._answer()

    def save_ours(self) -> dict[str, float]:
        """An emergency save of a new boundary, in the middle of the next step: from the agent's order to each phase."""
        self.ask("update")
        self._clear()
        connection = AgentConnection.open(self.fleet.vm.disk / "agent.sock", timeout=10.0)
        connection.send(Drill())
        report, _ = connection.receive(timeout=_PATIENCE_S)
        connection.close()
        if not isinstance(report, DrillReport) or report.error or "committed" not in report.phases_s:
            raise BenchError(f"an emergency save failed: {report}\n{_tail(self.fleet)}")
        return report.phases_s

    def restore_ours(self) -> dict[str, float]:
        """Fetch the newest checkpoint as the agent does at a start, into a new arena, and load it in the trainer."""
        self.ask("forget")
        begun = time.monotonic()
        fetched = fetch_newest(Checkpoints(self.store, _RUN_ID), timeout=_PATIENCE_S)
        if fetched is None:
            raise BenchError("there is no checkpoint to restore")
        fetch_s = time.monotonic() - begun
        self.orders.send(("load", (fetched.manifest.state,)))
        send_handle(self.orders, fetched.arena.fd, self.fleet.vm.trainer().pid)
        load_s = self._answer()
        total_s = time.monotonic() - begun
        fetched.arena.close()
        return {"fetch_s": fetch_s, "load_s": load_s, "total_s": total_s}

    def preempt(self) -> float:
        """A real notice, in the middle of a step: seconds until the manifest is in the bucket. The VM ends with it."""
        self.ask("update")
        given = self.fleet.give_notice()
        committed = self.fleet.wait_event("committed", timeout=_PATIENCE_S, since=given)
        self.fleet.wait_off(_PATIENCE_S)
        return committed.at - given

    def _clear(self) -> None:
        """Forget earlier checkpoints, so that the server has room."""
        for stored in self.store.list(ROLLING, timeout=_PATIENCE_S):
            self.store.delete(stored.name, timeout=_PATIENCE_S)

    def _answer(self) -> Any:
        if not self.orders.poll(_PATIENCE_S):
            raise BenchError(f"the trainer said nothing for {_PATIENCE_S:.0f} s")
        try:
            return self.orders.recv()
        except EOFError:
            raise BenchError(f"the trainer ended; its last lines:\n{_tail(self.fleet)}") from None


@contextmanager
def running_rig(storage: StorageControl, folder: Path, *, size: int) -> Iterator[Rig]:
    """A VM whose trainer, with `size` bytes of state, has done an update and whose arenas are ready."""
    run_file, address = folder / "bench.yaml", folder / "orders"
    run_file.write_text(_RUN)
    trainer = [sys.executable, "-P", "-m", "infra.bench.trainer", str(run_file), str(size), str(address)]
    command = [sys.executable, "-P", "-m", "infra.bench.agent", str(run_file), *trainer]
    with (
        socket.socket(socket.AF_UNIX) as listener,
        closing_on_signals(Fleet(_RUN_ID, command, folder, storage, boot_delay_s=0.0)) as fleet,
    ):
        listener.bind(str(address))
        listener.listen()
        listener.settimeout(_START_S)
        fleet.boot()
        with _accept(listener, fleet) as orders:
            rig = Rig(fleet, orders, open_store(f"gs://{BUCKET}/{_RUN_ID}"))
            rig.ask("update")
            # Host maintenance ahead makes the agent save at leisure: after that the arenas are planned and touched.
            fleet.vm.metadata.set("instance/maintenance-event", "MIGRATE_ON_HOST_MAINTENANCE")
            fleet.wait_event("committed", timeout=_PATIENCE_S)
            yield rig


def _accept(listener: socket.socket, fleet: Fleet) -> Connection:
    try:
        connected, _ = listener.accept()
    except TimeoutError:
        raise BenchError(f"the trainer did not start within {_START_S:.0f} s:\n{_tail(fleet)}") from None
    return Connection(connected.detach())


def _tail(fleet: Fleet) -> str:
    """What the VM said last, trainer and agent."""
    return "\n".join(str(event.values) for event in fleet.events[-20:])
