"""`python -m infra.bench.trainer RUN.yaml BYTES ORDERS`: trains a step when told to, and waits in the middle of one.

It holds the state that both sides save and restore. Saves of ours reach it through the session, as in any trainer; the
peer's are done here, in the same process, on the same tensors.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from multiprocessing.connection import Client, Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import Any

from spot_training import Session
from spot_training.protocol.arena import Arena
from spot_training.state import TrainState
from spot_training.tensors import tensors_in

from agent.checkpoint.bucket import Checkpoints
from agent.checkpoint.restore import fetch_newest
from agent.config import load_run
from agent.store import open_store
from infra.bench import peer
from infra.bench.state import Training, checksums

_CHECK_TIMEOUT_S = 120.0
_CHANGES_STATE = (
    "forget",
    "load",
    "choose_way",
    "restore_peer",
)  # an update to the session: no save begins in its step


class Hand:
    """Carries out orders; each returns its answer."""

    def __init__(self, orders: Connection, training: Training, bucket_url: str, run_id: str) -> None:
        self._orders = orders
        self._training = training
        self._bucket_url, self._run_id = bucket_url, run_id
        self._bucket = bucket_url.removeprefix("gs://").partition("/")[0]
        self._blob = peer.open_blob(os.environ["STORAGE_EMULATOR_HOST"], self._bucket, "peer/checkpoint.pt")
        self._way = peer.Way(Path(), mapped=False)
        self.answers: dict[str, Callable[..., Any]] = {
            "tensors": self._count,
            "checksums": lambda: checksums(training.tensors()),
            "checksums_ours": self._checksums_ours,
            "checksums_peer": lambda: checksums(training.tensors(peer.download(self._blob))),
            "forget": training.forget,
            "load": self._load,
            "choose_way": self._choose_way,
            "save_peer": lambda: peer.save(training, self._way, self._blob),
            "restore_peer": lambda: peer.restore(training, self._way, self._blob),
        }

    def _count(self) -> dict[str, int]:
        tensors = self._training.tensors().values()
        return {"tensors": len(tensors), "bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors)}

    def _choose_way(self, folders: list[Path]) -> tuple[Path, bool]:
        self._way = peer.fastest_way(self._training, folders)
        return self._way.file, self._way.mapped

    def _load(self, values: dict[str, Any]) -> float:
        """What the session does with the arena that the agent fetched into; its descriptor follows the order."""
        arena = Arena.adopt(recv_handle(self._orders))
        begun = time.monotonic()
        _load(arena, TrainState({"model": self._training.model, "optimizer": self._training.optimizer}), values)
        took = time.monotonic() - begun
        arena.close()
        return took

    def _checksums_ours(self) -> dict[str, int]:
        """Of the newest checkpoint in the bucket, fetched as a restart would."""
        store = open_store(f"{self._bucket_url}/{self._run_id}")
        fetched = fetch_newest(Checkpoints(store, self._run_id), timeout=_CHECK_TIMEOUT_S)
        assert fetched is not None, "nothing was committed"
        found = tensors_in(fetched.arena.view, size=fetched.arena.size)
        sums = checksums({name: tensor for name, tensor in found.items() if not name.startswith("rng.")})
        del found
        fetched.arena.close()
        return sums


def _load(arena: Arena, state: TrainState, values: dict[str, Any]) -> None:
    state.load(tensors_in(arena.view, size=arena.size), values)


def main() -> None:
    """Train one step for each order "update", until nobody gives orders any more."""
    run_file, size, address = sys.argv[1:]
    run = load_run(Path(run_file))
    training = Training(int(size))
    with Session.open() as session, Client(address, "AF_UNIX") as orders:
        hand = Hand(orders, training, str(run.checkpoint.bucket), run.run_id)
        session.track(model=training.model, optimizer=training.optimizer)
        for _ in session.steps(run.training.max_steps):
            training.backward(rows=4)
            while (order := orders.recv())[0] != "update":  # in the middle of a step
                name, arguments = order
                session.beat()
                with session.update() if name in _CHANGES_STATE else nullcontext():
                    orders.send(hand.answers[name](*arguments))
            with session.update():
                training.update()
            orders.send(None)


if __name__ == "__main__":
    main()
