"""`spot run`, `make llm`: one run on the local cloud, without the drama."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.text import Text

from agent.config import load_run
from agent.store import Store, open_store
from infra.local.cloud import local_cloud
from infra.local.demo.scenario import describe
from infra.local.fleet import Fleet, agent_command, closing_on_signals
from infra.local.vm import Event

_LONGEST_RUN_S = 30 * 86400.0
_CALL_S = 60.0


def run_once(run_file: Path, *, out: Path) -> int:
    """Train `run_file` on a local VM under the real agent; what it leaves in its bucket is in `out`/bucket.

    Returns the agent's exit status.
    """
    run = load_run(run_file)
    console = Console()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)

    def show(event: Event) -> None:
        if event.name == "trainer_output":
            console.print(Text(str(event.values.get("message", "")), style="dim"))
        elif text := describe(event):
            console.print(Text(text, style="bold"))

    bucket, _, prefix = run.checkpoint.bucket.removeprefix("gs://").partition("/")
    local = urlsplit(run.checkpoint.bucket).scheme == "gs"
    with ExitStack() as stack:
        cloud = stack.enter_context(local_cloud(bucket if local else "unused", [f"{prefix}/{run.run_id}"]))
        fleet = Fleet(run.run_id, agent_command(run_file.resolve()), out.resolve(), cloud.storage, mint=cloud.mint)
        fleet.echo = show
        stack.enter_context(closing_on_signals(fleet))
        fleet.boot()
        try:
            status = fleet.wait_off(_LONGEST_RUN_S)
        except KeyboardInterrupt:
            console.print("stopping: the agent saves what there is", style="bold yellow")
            fleet.press_power_button()
            status = fleet.wait_off(run.machine.shutdown_window)
        if local:
            export_bucket(open_store(f"{run.checkpoint.bucket}/{run.run_id}"), out / "bucket")
            console.print(f"the run's bucket: {out / 'bucket'}")
    if status:
        console.print(f"the agent ended with status {status}: see {fleet.vm.disk / 'agent.log'}", style="bold red")
    return status


def export_bucket(store: Store, folder: Path) -> None:
    """Copy a run's objects to files; the local bucket lives in memory only."""
    for stored in store.list(timeout=_CALL_S):
        target = folder / stored.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(store.read(stored.name, timeout=_CALL_S))
