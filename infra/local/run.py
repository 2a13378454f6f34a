"""`spot run`, `make llm`: one run on the local cloud, on this machine; the same command goes on where it was."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from agent.config import RunConfig, load_run, run_file_text
from agent.config.program import with_code
from agent.store import Store, StoreError, open_store
from infra.local.asked_to_stop import AskedToStop, heard
from infra.local.bucket import RunRecords
from infra.local.cloud import local_cloud
from infra.local.demo.scenario import named
from infra.local.fleet import Fleet, agent_command
from infra.local.interruptions import draw, measure
from infra.local.out_folder import CannotRun, OutFolder, alone_in, move_aside
from infra.local.screen import Screen
from infra.local.script import Happening
from infra.local.storage.control import ControlError
from infra.local.strikes import Strikes
from infra.packing import CodeError, code_of, pack_code, store_code

_LOOK_S = 0.2
_MORE_S = 15.0  # than the window: an agent that is told to stop in its first second
_LEAST_FREE = 64 << 10  # bytes
_EVENTS = 200  # of the newest, in which the last save's size is
NOT_SAVED = 5
"""Exit status: asked to stop, and what there was could not be saved."""


def run_once(
    run_file: Path,
    *,
    out: Path | None = None,
    fresh: bool = False,
    script: Iterator[Happening] | None = None,
    tied: bool = False,
) -> int:
    """Train `run_file` on a local VM under the real agent; its bucket is kept in `out`, by default out/RUN_ID.

    `script`: what happens to its VM. `tied`: the end of standard input asks it to stop, too. Returns the exit
    status: docs/commands.md says which there are. Raises CannotRun.
    """
    run = load_run(run_file)
    folder = out or Path("out") / run.run_id
    again = f"spot run {run_file}" + (f" --out {out}" if out else "")
    with (
        heard(tied=tied) as asked,
        _bucket_alone(run, fresh=fresh),
        OutFolder.opened(folder, run.run_id, fresh=fresh) as kept,
        _cloud(run, run_file, kept, Screen(asked)) as fleet,
    ):
        counts = run.workload.kind != "command"
        screen = Screen(asked, counted="step" if counts else "save")
        strikes = Strikes(fleet, fleet.storage, script or iter(()), asked, screen.say, run.machine.notice, counts)
        return AtHome(run, fleet, asked, screen, _open(run), kept, again, strikes).train()


def move_all_aside(run: RunConfig, folder: Path) -> None:
    """What `--fresh` does, before a command that goes on with what is there. Raises CannotRun."""
    with _bucket_alone(run, fresh=True), OutFolder.opened(folder, run.run_id, fresh=True):
        pass


@dataclass
class AtHome:
    """One `spot run`. `again`: the command that goes on with it."""

    run: RunConfig
    fleet: Fleet
    asked: AskedToStop
    screen: Screen
    store: Store
    kept: OutFolder
    again: str
    strikes: Strikes
    _full: bool = False

    def train(self) -> int:
        """Train to the end, or until somebody asks to stop. Returns the exit status."""
        step = self._step_of_the_end()
        if step is not None:
            self.screen.say(f"run {self.run.run_id} is complete already, at {self.screen.counted} {step}: {self.where}")
            self.screen.say(f"to begin anew: {self.again} --fresh (moves all of it aside, and deletes nothing)")
            return 0
        self._mind_the_disk()
        fleet, screen = self.fleet, self.screen
        fleet.echo = screen.event
        with fleet:
            fleet.boot()
            with screen.following(lambda: fleet.vm.disk / "trainer.log"):
                self._follow()
                status = self._stop() if self.asked else fleet.wait_off(_MORE_S)
        self._sum_up()
        if self.asked:
            return status
        if status:
            log = fleet.vm.disk / "agent.log"
            screen.say(f"the agent ended with status {status}: {log} says more", style="bold red")
        else:
            screen.say(self.where)
        return status

    @property
    def where(self) -> str:
        """Where what it made is."""
        url = f"{self.run.checkpoint.bucket}/{self.run.run_id}"
        here = self.kept.bucket / url.removeprefix("gs://") if url.startswith("gs://") else url
        return f"its bucket is {here}"

    def _follow(self) -> None:
        """Until the agent ends by itself, or somebody asks to stop."""
        while not self.asked:
            if self.strikes.between:
                time.sleep(_LOOK_S)
            elif self.fleet.vm.wait_down(_LOOK_S):
                return
            self.strikes.turn()
            self._mind_the_disk()

    def _mind_the_disk(self) -> None:
        """Say so where it gets full: what can't be stored is tried again, without a word."""
        free = shutil.disk_usage(self.kept.path).free
        sizes = [int(event.values["bytes"]) for event in self.fleet.events[-_EVENTS:] if event.name == "committed"]
        full = free < max([_LEAST_FREE, *sizes])
        if full and not self._full:
            self.screen.say(
                f"{self.kept.path}: {free / 1e6:.1f} MB are free, less than a save needs\n"
                "    fix: free space there; what could not be stored is tried again",
                style="bold red",
            )
        self._full = full

    def _sum_up(self) -> None:
        """What was taken away, where something was."""
        if not self.strikes.struck:
            return
        rows = measure(RunRecords(self.store), self.strikes.struck)
        lost = [row.steps_lost for row in rows]
        known = [steps for steps in lost if steps is not None]
        total = f"taken away {len(rows)} time{'s' * (len(rows) > 1)}; {sum(known)} steps were trained again"
        self.screen.show(draw(rows))
        self.screen.say(
            total + (f"; of {len(lost) - len(known)} it is not known how many" if len(known) < len(lost) else "")
        )

    def _stop(self) -> int:
        """Have the agent save, however often one asks. Returns the exit status."""
        fleet, screen = self.fleet, self.screen
        told = fleet.press_power_button()
        if not self.strikes.between:
            screen.say("stopping: the agent saves what there is", style="bold yellow")
        left = self.run.machine.shutdown_window + _MORE_S
        times = self.asked.times
        while not fleet.vm.wait_down(_LOOK_S) and left > 0:
            left -= _LOOK_S
            if self.asked.times > times:
                times = self.asked.times
                screen.say(f"it is saving, and ends by itself within {left:.0f} s", style="bold yellow")
        ended = fleet.vm.wait_down(0)
        fleet.cut_power()
        failed = [e for e in fleet.events if e.at >= told and e.name in ("not_staged", "not_committed", "save_failed")]
        if any(event.name == "complete" for event in fleet.events):
            screen.say(f"the run is complete: {self.where}")
            return 0
        tells = ("committed", "restored") if screen.counted == "step" else ("committed", "fetched")
        safes = [e.values for e in fleet.events if e.name in tells]
        safe = f"{named(safes[-1], screen.counted)} is safe" if safes else "nothing had been trained yet"
        if failed or not ended:
            screen.say(f"what there was at the end could not be saved; {safe}", style="bold red")
        else:
            screen.say(f"stopped: {safe}")
        screen.say(f"to go on: {self.again}")
        return NOT_SAVED if failed or not ended else self.asked.status

    def _step_of_the_end(self) -> int | None:
        """Where an earlier command has finished the run. Raises CannotRun where that can't be read."""
        try:
            newest = RunRecords(self.store).newest()
        except StoreError as error:
            raise CannotRun(f"what is in the bucket can't be read: {error}") from None
        return int(newest["step"]) if newest and newest["kind"] == "done" else None


def _open(run: RunConfig) -> Store:
    try:
        return open_store(f"{run.checkpoint.bucket}/{run.run_id}")
    except StoreError as error:
        raise CannotRun(str(error)) from None


@contextmanager
def _bucket_alone(run: RunConfig, *, fresh: bool) -> Iterator[None]:
    """A bucket that is a folder: nobody else on this machine trains the run in it meanwhile."""
    bucket = urlsplit(run.checkpoint.bucket)
    if bucket.scheme != "file":
        yield
        return
    folder = Path(unquote(bucket.path)) / run.run_id
    with alone_in(folder, run.run_id):
        if fresh and any(folder.iterdir()):
            move_aside(folder)
        yield


@contextmanager
def _cloud(run: RunConfig, run_file: Path, kept: OutFolder, screen: Screen) -> Iterator[Fleet]:
    """The local cloud with the run's bucket, and a fleet of one VM in it."""
    bucket, _, prefix = run.checkpoint.bucket.removeprefix("gs://").partition("/")
    local = urlsplit(run.checkpoint.bucket).scheme == "gs"
    prefixes = [f"{prefix}/{run.run_id}"]
    try:
        with local_cloud(bucket if local else "unused", prefixes, folder=kept.bucket if local else None) as cloud:
            command = agent_command(_as_a_vm_reads_it(run, run_file, kept, screen))
            yield Fleet(run.run_id, command, kept.path.resolve(), cloud.storage, mint=cloud.mint, booted=kept.booted)
    except (ControlError, CodeError) as error:
        raise CannotRun(str(error)) from None


def _as_a_vm_reads_it(run: RunConfig, run_file: Path, kept: OutFolder, screen: Screen) -> Path:
    """The run file, with its code packed and in the bucket: what starts here starts in the cloud, too."""
    code = code_of(run)
    if code is None:
        return run_file.resolve()
    screen.say(code.told())
    with tempfile.TemporaryDirectory() as place:
        address = store_code(pack_code(code, Path(place)), run.checkpoint.bucket)
    file = kept.path.resolve() / "run.yaml"
    file.write_text(run_file_text(with_code(run, address)))
    return file
