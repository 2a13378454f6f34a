"""A program's folder (`kind: command`): held, committed after a notice, and restored on the next VM.

The agent is the real one, on a local VM with its bucket, around a program that only says `spot saved` when it is told.
The peer is Google's client as its manual says for many files (`transfer_manager`, with as many workers as are fastest),
which uploads and downloads the same files, by turns, with the same server. It verifies nothing; we do.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any, TypedDict

from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Bucket, Client, transfer_manager

from agent.store import open_store
from infra.bench.figures import BenchError, Comparison, Spread, Target, compare, spread
from infra.bench.rig import BUCKET
from infra.local.fleet import Fleet, agent_command, closing_on_signals
from infra.local.storage.control import StorageControl

FILES = 50
_PATIENCE_S = 120.0
_RUN_ID = "folder"
_PROGRAM = "trap 'spot saved' USR1; while :; do sleep 0.05; done"
_RUN = """\
run_id: {run_id}
workload:
  kind: command
  command: [sh, -c, "{program}"]
  checkpoint_dir: "{folder}"
  env: {{PATH: "{path}"}}
checkpoint: {{bucket: "gs://{bucket}", every: "1 h"}}
"""
_WORKERS = (4, 16)


class Result(TypedDict):
    """`held`: the program may write to its files again. `committed`: from the notice until the manifest is in the
    bucket, beside the peer's upload. `again`: the same where one file of all has changed, whose bytes are
    `again_sent_bytes`. `restored`: from the agent's start on an empty VM until the files are back, beside the peer's
    download. `identical`: what came back is what was saved."""

    files: int
    bytes: int
    held: Spread
    committed: Comparison
    again: Spread
    again_sent_bytes: int
    restored: Comparison
    peer_workers: int
    identical: bool


def measure(storage: StorageControl, folder: Path, *, size: int, tries: int) -> Result:
    """Save and restore `size` bytes in files, `tries` times with each side, in turn."""
    ours, theirs = folder / "saves", folder / "peer"
    run_file = folder / "folder.yaml"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    run_file.write_text(_RUN.format(run_id=_RUN_ID, program=_PROGRAM, folder=ours, path=path, bucket=BUCKET))
    bucket = _peers_bucket(storage.url)
    times: dict[str, list[float]] = {name: [] for name in ("held", "committed", "again", "restored", "up", "down")}
    sent = 0
    _write(ours, size)
    shutil.copytree(ours, theirs)
    workers = min(_WORKERS, key=lambda count: _upload(bucket, theirs, count))
    with closing_on_signals(Fleet(_RUN_ID, agent_command(run_file), folder, storage, boot_delay_s=0.0)) as fleet:
        for _ in range(tries):
            shutil.rmtree(ours)
            _write(ours, size)
            expected = _digests(ours)
            _started(fleet)
            committed_s, event = _preempt(fleet)
            times["held"].append(float(event["copy_s"]))
            times["committed"].append(committed_s)
            times["up"].append(_upload(bucket, theirs, workers))
            shutil.rmtree(ours)
            times["restored"].append(_restore(fleet))
            times["down"].append(_download(bucket, theirs, workers))
            if _digests(ours) != expected:
                raise BenchError(f"{ours} came back with other bytes than were saved")
            (ours / "0.bin").write_bytes(os.urandom(size // FILES))
            committed_s, event = _preempt(fleet)
            times["again"].append(committed_s)
            sent = int(event["sent"])
            _forget(fleet)
    return Result(
        files=FILES,
        bytes=size // FILES * FILES,
        held=spread(times["held"]),
        committed=compare(times["committed"], times["up"]),
        again=spread(times["again"]),
        again_sent_bytes=sent,
        restored=compare(times["restored"], times["down"]),
        peer_workers=workers,
        identical=True,
    )


def targets(result: Result) -> list[Target]:
    return [
        Target("folder, held", result["held"]["median_s"], 0.5, "s"),
        Target("folder, one file of all changed, sent", result["again_sent_bytes"] / result["bytes"], 0.1, "of all"),
    ]


def _write(folder: Path, size: int) -> None:
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number}.bin").write_bytes(os.urandom(size // FILES))


def _digests(folder: Path) -> dict[str, str]:
    found = {}
    for file in folder.glob("*.bin"):
        with file.open("rb") as data:
            found[file.name] = hashlib.file_digest(data, "sha256").hexdigest()
    return found


def _started(fleet: Fleet) -> None:
    """The VM's program runs, and would hear a notice."""
    vm = fleet.boot()
    fleet.wait_event("trainer_started", timeout=_PATIENCE_S, since=vm.started)
    time.sleep(0.5)


def _preempt(fleet: Fleet) -> tuple[float, dict[str, Any]]:
    """Seconds from the notice to the commit, and what that said. The VM ends with it."""
    given = fleet.give_notice()
    committed = fleet.wait_event("committed", timeout=_PATIENCE_S, since=given)
    fleet.press_power_button()
    fleet.wait_off(_PATIENCE_S)
    return committed.at - given, committed.values


def _restore(fleet: Fleet) -> float:
    """Boot a VM that lacks the folder. Seconds from its agent's start until all is back."""
    vm = fleet.boot()
    up = fleet.wait_event("agent_started", timeout=_PATIENCE_S, since=vm.started)
    back = fleet.wait_event("fetched", timeout=_PATIENCE_S, since=vm.started)
    fleet.wait_event("trainer_started", timeout=_PATIENCE_S, since=vm.started)
    time.sleep(0.5)
    return back.at - up.at


def _forget(fleet: Fleet) -> None:
    """The run begins anew, and the server has room."""
    fleet.vm.cut_power()
    store = open_store(f"gs://{BUCKET}/{_RUN_ID}")
    for stored in store.list("", timeout=_PATIENCE_S):
        store.delete(stored.name, timeout=_PATIENCE_S)


def _peers_bucket(url: str) -> Bucket:
    client = Client(project="bench", credentials=AnonymousCredentials(), client_options=ClientOptions(api_endpoint=url))
    return client.bucket(BUCKET)


def _upload(bucket: Bucket, folder: Path, workers: int) -> float:
    begun = time.monotonic()
    done = transfer_manager.upload_many_from_filenames(
        bucket, [file.name for file in folder.iterdir()], source_directory=str(folder), blob_name_prefix="peer/",
        worker_type=transfer_manager.THREAD, max_workers=workers, raise_exception=True,
    )  # fmt: skip
    if len(done) != FILES:
        raise BenchError(f"Google's client uploaded {len(done)} of {FILES} files")
    return time.monotonic() - begun


def _download(bucket: Bucket, folder: Path, workers: int) -> float:
    names = sorted(file.name for file in folder.iterdir())
    shutil.rmtree(folder)
    folder.mkdir()
    begun = time.monotonic()
    transfer_manager.download_many_to_path(
        bucket, names, destination_directory=str(folder), blob_name_prefix="peer/",
        worker_type=transfer_manager.THREAD, max_workers=workers, raise_exception=True,
    )  # fmt: skip
    return time.monotonic() - begun
