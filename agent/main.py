"""`spot-agent run RUN.yaml`: the daemon's entry. It only wires."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import socket
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import structlog

from agent.checkpoint.bucket import Checkpoints
from agent.checkpoint.drain import Uploader
from agent.checkpoint.saver import Saver
from agent.config import RunConfig, RunFileError, load_run, parse_seconds
from agent.config.causes import ENDS_OF_GROUP
from agent.config.legs import STAGES, leg_named
from agent.config.program import with_own_paths
from agent.notices import Notices
from agent.notices.logind import Logind
from agent.notices.metadata import Machine, MetadataClient, MetadataError, is_on_gce, watch_metadata
from agent.notices.signals import signal_notices
from agent.program.maker import Maker, code_folder
from agent.run.daemon import Daemon
from agent.run.handover import handover_on_hangup
from agent.run.judgement import EXIT_AGAIN, EXIT_VM_UNFIT
from agent.run.spending import Spending
from agent.run.trackers import Trackers, commands
from agent.store import StoreError, open_store
from agent.telemetry import journal
from agent.telemetry.cloud_log import CloudLog, cloud_log
from agent.telemetry.health import Health
from agent.telemetry.ledger import Ledger
from agent.trainer.host import Host
from agent.trainer.scope import own_unit
from agent.vm import boot
from agent.vm.group import GROUP, finish, next_group
from agent.vm.systemd import fed

log = structlog.get_logger()

_LEARN_FIRST_S = 1.0  # the run does not wait longer to begin: its notices and its end are learned as well later
_LEARN_EVERY_S = 0.5
CLAIMANT = "claimant"
NOTICE_ATTRIBUTE = "spot-notice"  # custom metadata: how long before ACPI G2 this VM's template lets it know


async def supervise(
    run: RunConfig, run_file: Path, *, state_dir: Path, health_port: int, command: list[str] | None = None
) -> int:
    """Wire the agent and run it; `command` instead of the workload's own trainer. Returns the exit status."""
    place = Path(os.environ.get("STATE_DIRECTORY") or state_dir)  # what is large is not for memory, as /run is
    run = with_own_paths(run, code_folder(run, run_file, place))
    notices = Notices()
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(signal_notices(notices))
        health = Health(state_dir=state_dir, stale_after=run.supervision.hang_timeout)
        port = health.serve(health_port)
        stack.callback(health.close)
        logind = Logind(notices)
        await logind.start()
        stack.push_async_callback(logind.close)
        is_preempted: Callable[[], Awaitable[bool]] | None = None
        warning_s = run.machine.notice
        vm = os.environ.get("SPOT_LOCAL_VM") or socket.gethostname()
        client: MetadataClient | None = None
        machine: Machine | None = None
        sender: CloudLog | None = None
        ears: list[asyncio.Task[None]] = []
        replaceable = False
        if await is_on_gce():
            client = await stack.enter_async_context(MetadataClient())
            ears.append(asyncio.create_task(watch_metadata(client, notices)))
            stack.callback(ears[0].cancel)
            is_preempted = partial(ask_preempted, client)
            sender = await stack.enter_async_context(cloud_log(client))
            try:
                machine = await client.machine(timeout=_LEARN_FIRST_S)
            except MetadataError as error:
                log.warning("machine_unknown", reason=str(error))
            else:
                vm, replaceable, warning_s = machine.name, GROUP in machine.attributes, warning_of(machine, warning_s)
        try:
            claims_as = claimant(state_dir)
            store = open_store(f"{run.checkpoint.bucket}/{run.run_id}")
            leg = leg_named(run, names) if (names := os.environ.get(STAGES)) else None
        except (OSError, StoreError, ValueError) as error:
            why = f"{state_dir} can't be written: {error}" if isinstance(error, OSError) else str(error)
            log.error("vm_unfit", error=why)
            return EXIT_VM_UNFIT if replaceable else EXIT_AGAIN
        saver = Saver(Checkpoints(store, run.run_id), Uploader(store), run.checkpoint.keep, claims_as)
        host = Host(
            run,
            run_file,
            state_dir,
            Maker(run, run_file, place, store, command),
            own_unit(),
            saver,
            health,
            Ledger(store, run.run_id, vm, claims_as),
            time.monotonic,
            leg,
        )
        ours = client is not None and "SPOT_LOCAL_VM" not in os.environ  # else the machine is others' as well
        began = boot.started() if ours else (state_dir / CLAIMANT).stat().st_mtime
        spending = Spending(host, started=began, wall=time.time)
        daemon = Daemon(
            host,
            notices,
            spending=spending,
            warning_s=warning_s,
            is_preempted=is_preempted,
            replaceable=replaceable,
            ears=ears,
            next_group=partial(next_group, client) if client else None,
        )
        if client and not machine:  # a metadata server that is away at boot costs nothing for good
            learning = asyncio.create_task(learn_machine(client, daemon))
            stack.callback(learning.cancel)
        stack.enter_context(handover_on_hangup(daemon, sender))
        trackers = Trackers(commands(run, store.url, place / "tracking"), daemon.opened)
        stack.push_async_callback(trackers.close)
        log.info("agent_started", run_id=run.run_id, vm=vm, bucket=store.url, pid=os.getpid(), health_port=port)
        try:
            status = await daemon.run()
        except Exception as error:  # said while Cloud Logging still hears it
            log.error("agent_failed", error=repr(error), exc_info=error)
            raise
        async with fed("the run ends here: last words"):
            if daemon.cause == "complete":
                await trackers.last()
            if daemon.cause in ENDS_OF_GROUP or (daemon.cause == "vm_unfit" and daemon.replaceable):
                await spending.leave_last()
            if client:
                await finish(daemon.cause, client)
        return status


def claimant(state_dir: Path) -> str:
    """This boot of this VM: a name that survives the agent, but not the VM's disk. OSError where it can't be kept."""
    state_dir.mkdir(parents=True, exist_ok=True)
    path = state_dir / CLAIMANT
    if not path.exists() or not path.read_text():
        aside = path.with_suffix(".tmp")
        aside.write_text(uuid.uuid4().hex)
        aside.replace(path)
    return path.read_text()


def warning_of(machine: Machine, otherwise: float) -> float:
    """Seconds that a preemption is told ahead: the VM's own template knows better than the run file."""
    text = machine.attributes.get(NOTICE_ATTRIBUTE)
    if text is None:
        return otherwise
    try:
        return parse_seconds(text)
    except ValueError as error:
        log.warning("notice_unreadable", attribute=NOTICE_ATTRIBUTE, value=text, reason=str(error))
        return otherwise


async def learn_machine(client: MetadataClient, daemon: Daemon) -> None:
    """Which VM this is, asked until the metadata server answers, and all that follows from it."""
    while True:
        with contextlib.suppress(MetadataError):
            machine = await client.machine()
            break
        await asyncio.sleep(_LEARN_EVERY_S)
    daemon.host.ledger.vm = machine.name
    daemon.replaceable = GROUP in machine.attributes
    daemon.warning_s = warning_of(machine, daemon.warning_s)
    log.info("machine_known", vm=machine.name, notice_s=daemon.warning_s)


async def ask_preempted(client: MetadataClient) -> bool:
    """Whether the metadata server says now that this VM is preempted; it may be gone already."""
    with contextlib.suppress(MetadataError):
        return await client.get("instance/preempted", timeout=1.0) == "TRUE"
    return False


def run_to_the_end(work: Coroutine[Any, Any, int]) -> NoReturn:
    """As asyncio.run, and exit with its result, without waiting for calls that are still out in threads: one that hangs
    on a bucket that is away would outlast the window."""
    with asyncio.Runner() as runner:
        status = runner.run(work)
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    """Parse the command line, load the run file, run."""
    parser = argparse.ArgumentParser(
        prog="spot-agent",
        description="Supervises a training run on a Spot VM and saves its state before the VM goes.",
        epilog="Exit status: 0 complete, or preempted and saved; 1 worth another start; 2 a mistake in the run file; "
        "3 the run can't go on by itself (the last event, gave_up, says why); 4 this VM can't, another may (vm_unfit).",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="supervise the run that RUN.yaml describes, until it is complete")
    run.add_argument("run_file", type=Path, metavar="RUN.yaml")
    run.add_argument(
        "--state-dir",
        type=Path,
        default=Path(os.environ.get("SPOT_STATE_DIR", "/run/spot-agent")),
        help="socket, trainer log and pid (default: $SPOT_STATE_DIR, else /run/spot-agent)",
    )
    run.add_argument(
        "--log", choices=("auto", "journal", "json", "console"), default="auto", help="where events go (default: auto)"
    )
    run.add_argument("--health-port", type=int, default=9620, help="port of /healthz and /metrics; 0: any free one")
    options = parser.parse_args()
    try:
        config = load_run(options.run_file)
    except RunFileError as error:
        print(f"spot-agent: {error}", file=sys.stderr)
        sys.exit(2)
    journal.configure(options.log, run_id=config.run_id)
    os.environ["SPOT_STATE_DIR"] = str(options.state_dir)
    run_to_the_end(
        supervise(
            config,
            options.run_file.resolve(),
            state_dir=options.state_dir.resolve(),
            health_port=options.health_port,
        )
    )


if __name__ == "__main__":
    main()
