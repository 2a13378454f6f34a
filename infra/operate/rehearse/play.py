"""The runs of a rehearsal, on this machine: undisturbed ones by themselves, and one on the local cloud under the real
agent, which is struck where the plan says so."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from agent.config import RunConfig, run_file_text
from agent.config.program import program_of
from infra.local.cloud import local_cloud
from infra.local.fleet import Fleet, agent_command, closing_on_signals
from infra.operate.rehearse.records import Life, Run, Strike, json_lines, plan_of, read_lives

VARIABLE = "SPOT_REHEARSAL"
Say = Callable[[str], None]

_NOBODY_TOLD = {"WANDB_MODE": "disabled"}
_LOOK_S = 0.05
_STOP_S = 10.0
_NOTICE_S = 30.0
_WINDOW_S = 60.0
_LAST_LINES = 12
_LIVES_MORE = 2  # than were planned; a trainer that begins again and again is going nowhere


class CannotRehearse(Exception):
    """The rehearsal did not come to a verdict; the message says why, and what to do."""


class Refused(CannotRehearse):
    """The session itself says what a resume could not bring back, undisturbed; the message is its sentence."""


@dataclass(frozen=True)
class Play:
    """One script, in a new folder for each run. `steps`: where each run ends; `say`: tells people how far it is."""

    run: RunConfig
    run_file: Path
    out: Path
    steps: int
    say: Say

    def undisturbed(self, name: str) -> Run:
        """Train without an agent, and nothing happens. Raises CannotRehearse where it does not get to its end."""
        folder = self._folder(name, ())
        program = program_of(self.run, self.run_file)
        environment = {
            **os.environ,
            **program.env,
            VARIABLE: str(folder),
            **_NOBODY_TOLD,
            "SPOT_STATE_DIR": str(folder),
            "SPOT_RUN_ID": self.run.run_id,
            "SPOT_RUN_FILE": str(self.run_file),
        }
        environment.pop("SPOT_AGENT_SOCKET", None)
        log = folder / "trainer.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                program.command,
                cwd=program.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._follow(folder, name, lambda lives: process.poll() is not None or bool(lives and lives[-1].ended))
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(_STOP_S)
        lives = read_lives(folder)
        if process.returncode not in (0, -signal.SIGKILL):
            if sentence := refusal_in(log):
                raise Refused(sentence)
            raise CannotRehearse(f"the script fails by itself, undisturbed. Its last lines:\n{last_words(log)}")
        if not lives or not lives[0].boundaries:
            raise CannotRehearse(
                "the script has no session that could be rehearsed: it needs Session.open(), session.track(...) and "
                f"`for step in session.steps(...)`. Its last lines:\n{last_words(log)}"
            )
        return Run(lives[:1], json_lines(folder / "metrics.jsonl"))

    def struck(self, name: str, strikes: Sequence[Strike]) -> Run:
        """Train under the agent, struck as planned."""
        folder = self._folder(name, strikes)
        run_file = folder / "run.yaml"
        run_file.write_text(run_file_text(self._struck_run(folder)))
        with ExitStack() as stack:
            cloud = stack.enter_context(local_cloud("unused", []))
            fleet = Fleet(self.run.run_id, agent_command(run_file), folder, cloud.storage, boot_delay_s=0.0)
            stack.enter_context(closing_on_signals(fleet))
            fleet.boot()
            failure = self._strike(fleet, folder, strikes)
        lives = read_lives(folder)
        _note_the_way(fleet, lives)
        metrics = [line for vm in fleet.vms for line in json_lines(vm.disk / "metrics.jsonl")]
        return Run(lives, metrics, failure)

    def _strike(self, fleet: Fleet, folder: Path, strikes: Sequence[Strike]) -> str:
        """Take the VM away at each strike until the run is at its end. Returns what it said if it can't go on."""
        done = 0
        while True:
            self._follow(folder, "struck", partial(_has_news, fleet, done))
            lives = read_lives(folder)
            if lives and lives[-1].ended:
                return ""
            if any(not life.struck for life in lives[:-1]):
                return f"the trainer ended by itself. {_why(fleet)}"
            struck = [life.struck for life in lives if life.struck]
            if len(struck) > done:
                strike = struck[done]
                done += 1
                self.say(f"struck in {strike.moment} of step {strike.step} ({strike.how})")
                if strike.how == "notice":
                    begun = fleet.give_notice()
                    fleet.press_power_button()
                    with suppress(Exception):  # what it makes of the notice is what is rehearsed
                        fleet.wait_event("notice", timeout=_NOTICE_S, since=begun)
                    (folder / f"noticed-{strike.life}").touch()
                    fleet.vm.wait_down(_WINDOW_S)
                if strike.how != "kill":
                    fleet.cut_power()
                    fleet.recreate()
            elif not fleet.vm.is_running():
                complete = any(event.name == "complete" for event in fleet.events)
                return "" if complete else f"the run could not go on. {_why(fleet)}"
            if len(lives) > len(strikes) + _LIVES_MORE:
                return f"the trainer began {len(lives)} times for {len(strikes)} strikes. {_why(fleet)}"

    def _struck_run(self, folder: Path) -> RunConfig:
        """The run file of the run that is struck: saves to this disk, often, and tells nobody."""
        data: dict[str, Any] = self.run.model_dump(mode="json", exclude_unset=True)
        for key in ("cloud", "machine", "tracking", "ablations", "price_cap"):
            data.pop(key, None)
        data["checkpoint"] = {"bucket": f"file://{folder}/bucket", "every": f"{max(2, self.steps // 8)} steps"}
        data["supervision"] = {**data.get("supervision", {}), "crash_limit": 3}
        for stage in data.get("stages", ()):
            stage.pop("machine", None)
            stage.pop("checkpoint_every", None)
        workload = data.setdefault("workload", {})
        workload["env"] = {**workload.get("env", {}), **_NOBODY_TOLD, VARIABLE: str(folder)}
        return RunConfig.model_validate(data)

    def _folder(self, name: str, strikes: Sequence[Strike]) -> Path:
        folder = self.out / name
        folder.mkdir(parents=True)
        (folder / "plan.json").write_text(plan_of(strikes, end=self.steps))
        return folder

    def _follow(self, folder: Path, name: str, enough: Callable[[list[Life]], bool]) -> None:
        """Wait until it is `enough`. Raises CannotRehearse where nothing is heard as long as the run file allows."""
        supervision = self.run.supervision
        heard, since, told = -1, time.monotonic(), -1
        lives: list[Life] = []
        while True:
            size = sum(path.stat().st_size for path in folder.glob("life-*.jsonl"))
            if size != heard:
                heard, since = size, time.monotonic()
                lives = read_lives(folder)
            if enough(lives):
                return
            at = max(lives[-1].boundaries, default=-1) if lives else -1
            if at > told and at % max(1, self.steps // 4) == 0:
                told = at
                self.say(f"{name}: step {at} of {self.steps}")
            begun = bool(lives and lives[-1].boundaries)
            limit = supervision.hang_timeout if begun else supervision.start_timeout + supervision.restore_timeout
            if time.monotonic() - since > limit:
                raise CannotRehearse(f"{name}: nothing was heard of the trainer for {limit:.0f} s: see {folder}")
            time.sleep(_LOOK_S)


def _has_news(fleet: Fleet, done: int, lives: list[Life]) -> bool:
    """Whether there is something to do about the run, of which `done` strikes were dealt with."""
    return (
        not fleet.vm.is_running()
        or len([life for life in lives if life.struck]) > done
        or bool(lives and lives[-1].ended)
        or any(not life.struck for life in lives[:-1])
    )


def last_words(log: Path) -> str:
    """The end of a trainer's output."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(f"    {line}" for line in lines[-_LAST_LINES:]) or "    (none)"


def refusal_in(log: Path) -> str:
    """The sentence that a session ended a trainer with, such as "`best` (train.py:88) is not tracked: ..."; or none."""
    text = log.read_text(errors="replace") if log.exists() else ""
    found = re.findall(r"^(?:spot_training\.[\w.]+\.)(?:StateError|SessionError|DataError): (.*)", text, re.M | re.S)
    return str(found[-1]).strip() if found else ""


def _why(fleet: Fleet) -> str:
    """What the agent and its trainer said last."""
    told = [event for event in fleet.events if event.name in ("gave_up", "save_failed", "not_staged", "not_committed")]
    agent = "".join(f"{event.values.get('error') or event.values.get('why')}. " for event in told[-1:])
    words = [str(event.values.get("message", "")) for event in fleet.events if event.name == "trainer_output"]
    return f"{agent}Its last lines:\n" + "\n".join(f"    {line}" for line in words[-_LAST_LINES:])


def _note_the_way(fleet: Fleet, lives: Sequence[Life]) -> None:
    """What was safe when each life began, and what the agent gave it, by the agent's own journal."""
    number, committed = 0, 0
    for event in fleet.events:
        if event.name == "committed":
            committed = max(committed, int(event.values["step"]))
        elif event.name == "trainer_started":
            number += 1
            if number <= len(lives):
                lives[number - 1].committed = committed
        elif event.name == "restored" and 1 <= number <= len(lives):
            lives[number - 1].restored = int(event.values["step"])
