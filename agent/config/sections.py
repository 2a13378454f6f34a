"""The other sections of a run file: the program, its checkpoints, its stages, its supervision."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, model_validator

from agent.config.learning import Rate
from agent.config.machine import StageMachine
from agent.config.places import PACKED, Bucket, Code, InCode, SavesTo
from agent.config.refusal import Many, Refusal, Section
from agent.config.spike import Spike
from agent.config.units import CadenceText, Seconds, Steps, written

Name = Annotated[str, Field(min_length=1)]
LONGEST_GRACE = 20.0
ON_THEIR_OWN = ("script", "command")
"""Kinds whose program is the user's: it takes nothing but its own command from the run file."""
_OTHERS_LOCKS = {
    "poetry.lock": "poetry export -o requirements.txt (poetry-plugin-export), and write that",
    "pdm.lock": "pdm export -o requirements.txt, and write that",
    "Pipfile": "pipenv requirements > requirements.txt, and write that",
    "Pipfile.lock": "pipenv requirements > requirements.txt, and write that",
    "pixi.lock": "list what comes from PyPI in a requirements.txt; the rest belongs into the image",
    "conda-lock.yml": "list what comes from PyPI in a requirements.txt; the rest belongs into the image",
    "environment.yml": "list what comes from PyPI in a requirements.txt; the rest belongs into the image",
    "environment.yaml": "list what comes from PyPI in a requirements.txt; the rest belongs into the image",
}


class Workload(Section):
    """The program that trains."""

    kind: Literal["llm", "vlm", "arr-coc", "script", "command"] = "llm"
    """`llm`, `vlm` and `arr-coc` are this project's own trainers, `script` is your own program with a session
    (`spot_training`) in it, `command` any program that saves to a folder by itself. Default: llm."""

    command: Many[Name] = ()
    """kinds `script` and `command`: the program and its arguments, started in the code's folder. A launcher in front of
    it is fine. Default: [] (required for both)."""

    code: Code | None = None
    """kinds `script` and `command`: the folder with your program. It is packed and travels with the run; what
    `.gitignore` excludes stays behind. Default: null (the run file's folder)."""

    requirements: InCode | None = None
    """kinds `script` and `command`: a requirements or lock file in the code (requirements.txt, pylock.toml,
    pyproject.toml, uv.lock). The program gets an environment of its own with what is in there and `spot_training`,
    nothing else. Default: null (a script's `python` is the agent's)."""

    no_secret: Many[InCode] = ()
    """kinds `script` and `command`: files of the code that look as if they held a secret, and hold none.
    Default: [] (what looks so is refused)."""

    setup: InCode | None = None
    """kinds `script` and `command`: a script in the code, run by bash on each new VM before the program first starts,
    in the program's environment. Default: null (none)."""

    notice_signal: Literal["SIGUSR1", "SIGUSR2", "SIGTERM", "SIGINT", "SIGHUP"] = "SIGUSR1"
    """kind `command`: the signal that tells the program to save. Default: SIGUSR1."""

    checkpoint_dir: SavesTo | None = None
    """kind `command`: the folder that the program saves to, relative to the code's folder. Default: null (required for
    `command`)."""

    complete_when: Name | None = None
    """kind `command`: a glob, below checkpoint_dir, of the file that the program writes last: "*/done" says that a
    folder is whole once it holds `done`. Default: null (the program's own word, `spot saved`; a framework's last file;
    else a folder that stands still for a second, which does not promise that it is whole)."""

    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables for the trainer. Default: {}."""

    @model_validator(mode="before")
    @classmethod
    def _code_is_beside_the_run_file(cls, values: Any, info: ValidationInfo) -> Any:
        """Where no folder is named. Only a run file that is read has one beside it."""
        base = (info.context or {}).get("base")
        if base and isinstance(values, dict) and values.get("kind") in ON_THEIR_OWN and values.get("code") is None:
            return {**values, "code": str(base)}
        return values

    @property
    def brings_environment(self) -> bool:
        """Whether the program has an environment of its own, and needs nothing of the agent's."""
        return self.requirements is not None or self.setup is not None

    @property
    def packed(self) -> bool:
        """Whether `code` is an address, and no folder of this machine."""
        return self.code is not None and PACKED.fullmatch(self.code) is not None

    def refusals(self) -> Iterator[Refusal]:
        if self.kind in ON_THEIR_OWN and not self.command:
            yield Refusal(("kind",), f"kind {self.kind} needs a command", "add command: [python, train.py]")
        elif len(self.command) == 1 and len(words := self.command[0].split()) > 1:
            yield Refusal(
                ("command", 0),
                f"there is hardly a program called {self.command[0]!r}",
                f"write [{', '.join(words)}]: the program and each argument by itself",
            )
        if self.kind == "command" and self.checkpoint_dir is None:
            yield Refusal(
                ("kind",), "kind command needs the folder that the program saves to", "add checkpoint_dir: FOLDER"
            )
        for key, kinds in (
            ("command", ON_THEIR_OWN),
            ("code", ON_THEIR_OWN),
            ("requirements", ON_THEIR_OWN),
            ("no_secret", ON_THEIR_OWN),
            ("setup", ON_THEIR_OWN),
            ("notice_signal", ("command",)),
            ("checkpoint_dir", ("command",)),
            ("complete_when", ("command",)),
        ):
            if key in self.model_fields_set and self.kind not in kinds:
                fix = f"leave it out, or write kind: {' or '.join(kinds)}"
                yield Refusal((key,), f"kind {self.kind} does not use it", fix)
        if self.requirements is not None and (how := _OTHERS_LOCKS.get(Path(self.requirements).name)):
            yield Refusal(
                ("requirements",), f"uv, which makes the program's environment, does not read {self.requirements}", how
            )
        if self.complete_when is not None and {"..", "**", ""} & set(self.complete_when.split("/")):
            yield Refusal(
                ("complete_when",),
                f"{self.complete_when!r} is no glob of files below the checkpoint folder",
                'write one relative to it, without "..", "**" or a leading "/", such as "*/done"',
            )
        if self.checkpoint_dir and self.code and Path(self.code).is_relative_to(self.checkpoint_dir):
            yield Refusal(
                ("checkpoint_dir",),
                f"{self.checkpoint_dir} holds the program's code, which a checkpoint would be put back over",
                "write a folder below it, such as saves",
            )
        for variable in self.env:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
                yield Refusal(("env",), f"{variable!r} can't be an environment variable", "use letters, digits and '_'")


class Checkpoint(Section):
    """Where checkpoints go, how often, and which of them stay."""

    bucket: Bucket
    """gs://BUCKET/PREFIX, or file:///FOLDER on a disk that outlives the VM. Default: required."""

    every: CadenceText = written("auto")
    """From one checkpoint to the next: "500 steps", "10 min", or `auto`, which weighs what a save costs against what a
    preemption would lose. Unit: steps or duration. Default: auto."""

    keep: int = Field(default=3, ge=1)
    """The newest checkpoints that stay; at least 2 leave one to fall back to. Unit: checkpoints. Default: 3."""

    milestone_every: CadenceText | None = None
    """From one checkpoint that stays for good to the next, in steps. Unit: steps. Default: null (none)."""

    def refusals(self) -> Iterator[Refusal]:
        if self.milestone_every is None:
            return
        if self.milestone_every.steps is None:
            yield Refusal(
                ("milestone_every",),
                f"{self.milestone_every} is no number of steps",
                'write a number of steps, such as "5000 steps", or null',
            )
        elif self.every.steps is not None and self.milestone_every.steps % self.every.steps:
            near = max(self.milestone_every.steps // self.every.steps, 1) * self.every.steps
            yield Refusal(
                ("milestone_every",),
                f"no checkpoint is made at step {self.milestone_every.steps}: every is {self.every}",
                f'write a multiple, such as "{near} steps"',
            )


class Trained(Section):
    """Modules that a stage trains."""

    modules: Annotated[Many[Name], Field(min_length=1)]
    """Names of modules, as glob patterns: "connector", "language.model.layers.1*". A module that is named is trained
    with all that is in it; where several entries name it, the first decides. Default: required."""

    learning_rate: Rate
    """The learning rate of these modules at its highest. Unit: none. Default: required."""

    warmup_steps: Steps | None = Field(default=None, ge=0)
    """Their learning rate rises for this long, from the stage's start. Unit: steps. Default: null (a twentieth of the
    stage's steps)."""


class Stage(Section):
    """A part of the run with its own trained modules, learning rates, cadence or machine."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    """A name for journal and metrics. Default: required."""

    steps: Steps = Field(ge=1)
    """Optimizer steps in this stage. Unit: steps. Default: required."""

    train: Many[Trained] = ()
    """What this stage trains; everything else is frozen. Default: [] (the whole model, as `training` says)."""

    optimizer: Literal["carry", "fresh"] = "carry"
    """What the optimizer knows of the parameters that the stage before trained too: `carry` goes on with it, `fresh`
    begins anew. Default: carry."""

    machine: StageMachine | None = None
    """Where the stage's machine differs from the run's. Default: null (it doesn't)."""

    checkpoint_every: CadenceText | None = None
    """As checkpoint.every, in this stage. Unit: steps or duration. Default: null (the run's)."""

    def refusals(self) -> Iterator[Refusal]:
        for place, trained in enumerate(self.train):
            if trained.warmup_steps is not None and trained.warmup_steps >= self.steps > 1:
                yield Refusal(
                    ("train", place, "warmup_steps"),
                    f"the warm-up of {trained.warmup_steps} steps never ends: the stage has {self.steps}",
                    f"write warmup_steps: {self.steps // 20}, or more steps",
                )


class PriceCap(Section):
    """A planning rule: Compute Engine has no bid, so the cap is looked at before a run starts, not while it runs."""

    max_hourly_usd: float = Field(gt=0, allow_inf_nan=False)
    """The run is not planned while its VMs together cost more. Unit: US dollars per hour. Default: required."""


class Supervision(Section):
    """When the agent gives up on a trainer."""

    hang_timeout: Seconds = written("10 min", gt=0)
    """A trainer that trains, and has had no heartbeat for this long, is restarted. Unit: duration. Default: 10 min."""

    prepare_timeout: Seconds = written("10 min", gt=0)
    """kinds `script` and `command`: how long a VM may take to fetch the code, make its environment and run its setup.
    Unit: duration. Default: 10 min."""

    start_timeout: Seconds = written("60 min", gt=0)
    """From the program's start to its first step: tokenising and building the model included, restoring not. It is
    restarted after that. Unit: duration. Default: 60 min."""

    restore_timeout: Seconds = written("30 min", gt=0)
    """How long a trainer may take to bring its checkpoint back into its tensors. It is restarted after that.
    Unit: duration. Default: 30 min."""

    evaluate_timeout: Seconds = written("60 min", gt=0)
    """How long one evaluation may take. The trainer is restarted after that. Unit: duration. Default: 60 min."""

    finish_timeout: Seconds = written("60 min", gt=0)
    """From the last step to the program's end: the last evaluation and the result's files included. It is restarted
    after that. Unit: duration. Default: 60 min."""

    stop_grace: Seconds = written("5 s", gt=0)
    """From SIGTERM to SIGKILL when a trainer is stopped, at most 20 s. Unit: duration. Default: 5 s."""

    crash_limit: int = Field(default=3, ge=1)
    """Crashes in a row, without a step done, after which the run stops. Unit: crashes. Default: 3."""

    max_cost: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """What the run's VMs may cost in all, by their hours and machine.hourly_usd (storage and traffic are not in it).
    There the state is saved, the run stops, and its group goes to zero. Unit: US dollars. Default: null (no bound)."""

    spike: Spike | None = None
    """When the run goes back to its last good checkpoint by itself. Default: null (never)."""

    def refusals(self) -> Iterator[Refusal]:
        if self.stop_grace > LONGEST_GRACE:
            yield Refusal(
                ("stop_grace",),
                f"{self.stop_grace:g} s don't fit into the 30 s that a Spot VM has to shut down",
                'write a duration up to "20 s", such as "5 s"',
            )
            return
        for key in ("hang_timeout", "start_timeout", "restore_timeout", "evaluate_timeout", "finish_timeout"):
            if self.stop_grace >= getattr(self, key):
                yield Refusal(
                    (key,),
                    "it is no longer than stop_grace, so a trainer that is stopping counts as hung",
                    'write a longer duration, such as "10 min"',
                )
