"""`spot run`, `make llm`: one run on the local cloud, without the drama."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.text import Text

from agent.config import RunConfig, load_run
from agent.config.program import trainer_command, trainer_folder
from agent.store import Store, open_store
from infra.local.cloud import local_cloud
from infra.local.demo.scenario import describe
from infra.local.fleet import Fleet, agent_command, closing_on_signals
from infra.local.vm import Event

_LONGEST_RUN_S = 30 * 86400.0
_OURS = {"vms", "bucket"}
"""What an earlier run leaves in its folder."""
_CALL_S = 60.0


class CannotRun(Exception):
    """This machine can't train the run; the text says why, and what to do."""


def run_once(run_file: Path, *, out: Path) -> int:
    """Train `run_file` on a local VM under the real agent; what it leaves in its bucket is in `out`/bucket.

    Returns the agent's exit status. Raises CannotRun.
    """
    run = load_run(run_file)
    console = Console()
    _need_program(run, run_file)
    _clear(out)

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


def _need_program(run: RunConfig, run_file: Path) -> None:
    folder, program = trainer_folder(run, run_file), trainer_command(run, run_file)[0]
    if "/" in program:
        found = os.access(folder / program, os.X_OK)
    else:
        found = shutil.which(program, path=run.workload.env.get("PATH")) is not None
    if not found:
        raise CannotRun(
            f"{run_file}: workload.command: there is no program {program} to start in {folder}\n"
            "    fix: correct its name, or install it"
        )


def _clear(out: Path) -> None:
    """An empty folder: what an earlier run left in it is removed, and nothing else."""
    try:
        if out.exists() and (others := {path.name for path in out.iterdir()} - _OURS):
            raise CannotRun(
                f"{out} holds {sorted(others)[0]}, which no run has left there, and would be deleted\n"
                "    fix: name another folder with --out"
            )
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise CannotRun(
            f"{out} can't be written: {(error.strerror or str(error)).lower()}\n    fix: name another folder with --out"
        ) from None


def export_bucket(store: Store, folder: Path) -> None:
    """Copy a run's objects to files; the local bucket lives in memory only."""
    for stored in store.list(timeout=_CALL_S):
        target = folder / stored.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(store.read(stored.name, timeout=_CALL_S))
