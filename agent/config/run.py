"""One run, as its file describes it."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from pydantic import Field, ValidationError

from agent.config.ablations import Ablations, Point
from agent.config.cloud import Cloud
from agent.config.learning import Data, Training
from agent.config.machine import Machine
from agent.config.model import Language, Model, refused_model
from agent.config.pictures import refused_pictures
from agent.config.refusal import Many, Refusal, Section
from agent.config.sections import ON_THEIR_OWN, Checkpoint, PriceCap, Stage, Supervision, Workload
from agent.config.tracking import Tracking

_OF_THE_TYPE: dict[str, Any] = {"accelerators": None, "alternatives": []}
"""Keys of a machine that say nothing of a machine of another type."""
_PRICED = {"type", "accelerators", "provisioning", "alternatives", "local_ssd"}
"""Keys of a machine that its price depends on."""


class RunConfig(Section):
    """The contract: the planner prices it, the stacks deploy it, the agent supervises it, the trainer trains it."""

    run_id: str = Field(pattern=r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$")
    """The run's name, also of its VMs: up to 40 of a-z, 0-9 and `-`, starting with a letter. Default: required."""

    workload: Workload = Workload()
    """The program that trains."""

    model: Model | None = None
    """The model that is trained. Default: null (required but for kinds `script` and `command`)."""

    data: Data | None = None
    """The text that it is trained on. Default: null (required but for kinds `script` and `command`)."""

    training: Training = Field(default_factory=Training)
    """The optimizer's side of the run."""

    checkpoint: Checkpoint
    """Where checkpoints go, how often, and which of them stay."""

    machine: Machine = Machine()
    """The machine that the run is to be given."""

    cloud: Cloud | None = None
    """Where the stacks build, and for whom. Default: null (required by `spot deploy` alone)."""

    stages: Many[Stage] = ()
    """Parts of the run, one after the other. Default: [] (the run is one part)."""

    ablations: Ablations | None = None
    """Experiments that are trained instead of the run as it stands. Default: null (none)."""

    price_cap: PriceCap | None = None
    """What the run may cost per hour. Default: null (anything)."""

    tracking: Tracking | None = None
    """Where metrics go besides the run's own files. Default: null (nowhere)."""

    supervision: Supervision = Supervision()
    """When the agent gives up on a trainer."""

    @property
    def sends_itself(self) -> bool:
        """Whether the program talks to Weights & Biases itself, and the agent does not."""
        wandb = self.tracking.wandb if self.tracking else None
        if wandb is None:
            return False
        return wandb.sender == "program" or (wandb.sender is None and self.workload.kind == "command")

    def machine_for(self, stage: Stage) -> Machine:
        """The run's machine with what the stage changes. Raises pydantic's ValidationError where they don't fit."""
        if stage.machine is None:
            return self.machine
        merged = self.machine.model_dump(mode="json") | stage.machine.model_dump(mode="json", exclude_unset=True)
        if stage.machine.type is not None:
            merged |= {key: empty for key, empty in _OF_THE_TYPE.items() if key not in stage.machine.model_fields_set}
        if stage.machine.model_fields_set & _PRICED and stage.machine.hourly_usd is None:
            merged["hourly_usd"] = None
        return Machine.model_validate(merged)

    def experiments(self) -> tuple["RunConfig", ...]:
        """The runs that the ablations ask for, each whole; () without ablations."""
        if self.ablations is None:
            return ()
        data = self.model_dump(mode="json", exclude_unset=True)
        return tuple(RunConfig.model_validate(point.changed(data)) for point in self.ablations.points())

    def refusals(self) -> Iterator[Refusal]:
        if self.workload.kind in ON_THEIR_OWN:
            yield from self._refused_for_a_program()
        else:
            yield from self._refused_for_a_trainer()
        yield from self._refused_cadences()
        yield from self._refused_stages()
        yield from self._refused_bound()
        yield from self._refused_ablations()

    def _refused_for_a_program(self) -> Iterator[Refusal]:
        kind = self.workload.kind
        for key in ("model", "data", "training", *(("stages",) if kind == "command" else ())):
            if key in self.model_fields_set and getattr(self, key):
                yield Refusal((key,), f"kind {kind} does not use it: the program is on its own", f"leave out {key}")
        if kind == "script":  # its session counts steps
            for place, stage in enumerate(self.stages):
                if stage.train:
                    yield Refusal(
                        ("stages", place, "train"), "kind script says itself what it trains", "leave out train"
                    )
            return
        if self.supervision.spike is not None:
            yield Refusal(
                ("supervision", "spike"),
                "the agent does not see the metrics of kind command",
                "leave it out, or write kind: script with a session (spot_training) in the program",
            )
        if self.tracking and self.tracking.tensorboard:
            yield Refusal(
                ("tracking", "tensorboard"), "the agent does not see the metrics of kind command", "leave it out"
            )
        if self.tracking and self.tracking.wandb and self.tracking.wandb.sender == "agent":
            yield Refusal(
                ("tracking", "wandb", "sender"),
                "the agent does not see the metrics of kind command",
                "leave it out: the program sends them itself",
            )
        for key in ("every", "milestone_every"):
            cadence = getattr(self.checkpoint, key)
            if cadence is not None and cadence.steps is not None:
                yield Refusal(
                    ("checkpoint", key),
                    "the agent can't count the steps of kind command",
                    'write a duration, such as "10 min"' if key == "every" else "leave it out",
                )

    def _refused_for_a_trainer(self) -> Iterator[Refusal]:
        kind = self.workload.kind
        if self.sends_itself:
            yield Refusal(
                ("tracking", "wandb", "sender"),
                f"the {kind} trainer does not talk to Weights & Biases itself",
                "leave it out: the agent sends what is committed",
            )
        if "prepare_timeout" in self.supervision.model_fields_set:
            yield Refusal(("supervision", "prepare_timeout"), f"kind {kind} brings no code to prepare", "leave it out")
        if self.model is None:
            given = "name: HUGGING-FACE-NAME" if kind == "llm" else "vision: {name: ...}, language: {name: ...}"
            yield Refusal((), f"kind {kind} needs a model", f"add model: {{{given}}}")
        if self.data is None:
            yield Refusal((), f"kind {kind} needs data", "add data: {source: FOLDER}")
        else:
            yield from refused_pictures(kind, self.data.source, self.data.model_fields_set, self.data.pictures)
        if self.model is None:
            return
        if kind == "llm" and self.model.sees:
            yield Refusal(("model",), "kind llm trains a language model alone", "write kind: vlm, or name or config")
        if kind == "vlm" and not self.model.sees:
            fix = "write vision: {name: ...} and language: {name: ...}, or kind: llm"
            yield Refusal(("model",), "kind vlm trains a language model that sees", fix)
        yield from refused_model(kind, self.model, self.training.max_steps)
        where = ("model", "language") if self.model.sees else ("model",)
        yield from _refused_text(self.model.text, self.data, ".".join(where))

    def _refused_cadences(self) -> Iterator[Refusal]:
        every, limit = self.checkpoint.every, self.machine.max_run_duration
        if every.steps is not None and self.workload.kind not in ON_THEIR_OWN and every.steps > self.training.max_steps:
            yield Refusal(
                ("checkpoint", "every"),
                f"a run of {self.training.max_steps} steps never gets to its first checkpoint",
                f'write fewer than {self.training.max_steps} steps, or "auto"',
            )
        if every.seconds is not None and limit is not None and every.seconds >= limit:
            yield Refusal(
                ("checkpoint", "every"),
                f"the VM is stopped after {limit:g} s (machine.max_run_duration), before its first checkpoint",
                'write a shorter duration, or "auto"',
            )

    def _refused_stages(self) -> Iterator[Refusal]:
        if not self.stages:
            return
        total = sum(stage.steps for stage in self.stages)
        if total != self.training.max_steps and self.workload.kind not in ON_THEIR_OWN:
            yield Refusal(
                ("training", "max_steps") if "max_steps" in self.training.model_fields_set else ("stages",),
                f"the stages have {total} steps together, training.max_steps is {self.training.max_steps}",
                f"write training.max_steps: {total}, or change the stages",
            )
        names = [stage.name for stage in self.stages]
        for place, stage in enumerate(self.stages):
            if stage.name in names[:place]:
                yield Refusal(
                    ("stages", place, "name"),
                    f"two stages are called {stage.name}",
                    "give each stage a name of its own",
                )
            if stage.checkpoint_every and stage.checkpoint_every.steps and stage.checkpoint_every.steps > stage.steps:
                yield Refusal(
                    ("stages", place, "checkpoint_every"),
                    f"a stage of {stage.steps} steps never gets to its first checkpoint",
                    f'write fewer than {stage.steps} steps, or "auto"',
                )
            warmup = self.training.warmup_steps if "warmup_steps" in self.training.model_fields_set else 0
            if not stage.train and warmup >= stage.steps > 1:
                yield Refusal(
                    ("stages", place, "steps"),
                    f"training.warmup_steps, {warmup}, never ends in a stage of {stage.steps} steps",
                    "write more steps, fewer training.warmup_steps, or the stage's own in train",
                )
            try:
                self.machine_for(stage)
            except ValidationError as error:
                for mistake in error.errors(include_url=False):
                    given: dict[str, Any] = mistake.get("ctx", {})
                    where = ("stages", place, "machine", *mistake["loc"])
                    yield Refusal(where, given.get("reason", mistake["msg"]), given.get("fix", "see machine"))

    def _refused_bound(self) -> Iterator[Refusal]:
        if self.supervision.max_cost is None:
            return
        fix = "add hourly_usd: US DOLLARS, from https://cloud.google.com/spot-vms/pricing for your region"
        if self.machine.hourly_usd is None:
            yield Refusal(
                ("supervision", "max_cost"), "no price is known that it could be reckoned by", f"{fix}, to machine"
            )
        for place, stage in enumerate(self.stages):
            with suppress(ValidationError):  # told elsewhere
                if self.machine.hourly_usd is not None and self.machine_for(stage).hourly_usd is None:
                    yield Refusal(
                        ("stages", place, "machine"),
                        "its price is not known, and supervision.max_cost is reckoned by it",
                        fix,
                    )

    def _refused_ablations(self) -> Iterator[Refusal]:
        if self.ablations is None:
            return
        if self.stages:
            yield Refusal(("ablations",), "an experiment has one machine, and no stages", "leave out stages")
        if self.machine.vms > 1:
            yield Refusal(("ablations",), "an experiment has one VM", "write machine.vms: 1")
        data = self.model_dump(mode="json", exclude_unset=True)
        named: dict[str, Point] = {}
        told: set[tuple[Any, ...]] = set()
        for point in self.ablations.points():
            name = point.name(self.run_id)
            if name in named:
                yield Refusal(
                    ("ablations", "grid"),
                    f"two experiments would be called {name}: {named[name].values} and {point.values}",
                    "write values that differ in letters or digits",
                )
            named[name] = point
            try:
                RunConfig.model_validate(point.changed(data))
            except ValidationError as error:
                for mistake in error.errors(include_url=False):
                    refusal = _refused_experiment(point, mistake)
                    follows = mistake["type"] == "default_factory_not_called"
                    if not follows and (refusal.where, mistake["loc"]) not in told:  # once, not for each combination
                        told.add((refusal.where, mistake["loc"]))
                        yield refusal


def _refused_experiment(point: Point, mistake: Any) -> Refusal:
    """What is wrong with one experiment, told at the grid's value that it comes from."""
    path = ".".join(str(key) for key in mistake["loc"])
    at = next(
        (key for key in point.values if path == key or path.startswith(f"{key}.") or key.startswith(f"{path}.")), None
    )
    where: tuple[str | int, ...] = ("ablations", "grid") if at is None else ("ablations", "grid", at, point.places[at])
    given: dict[str, Any] = mistake.get("ctx", {})
    if mistake["type"] == "extra_forbidden":
        return Refusal(where[:3], f"there is no key {path}", "write a key of the run file, with dots between its parts")
    about = f"{path}: " if path and path != at else ""
    together = ", ".join(f"{key}: {value}" for key, value in point.values.items())
    return Refusal(
        where,
        f"with {together}, {about}{given.get('reason', mistake['msg'])}",
        given.get("fix", f"write a value that {path} can have"),
    )


def _refused_text(model: Language, data: Data | None, key: str) -> Iterator[Refusal]:
    """What does not fit of the language model, which is at `key` of the run file, and its data."""
    tokenizer = data.tokenizer if data is not None else None
    if model.name is not None and tokenizer and tokenizer.train_vocab_size:
        yield Refusal(
            ("data", "tokenizer", "train_vocab_size"),
            f"{model.name} was trained with a tokenizer of its own",
            "leave out tokenizer",
        )
    if model.config is not None and data is not None:
        yield from _refused_config(model.config, data, key)


def _refused_config(config: dict[str, Any], data: Data, key: str) -> Iterator[Refusal]:
    if data.tokenizer is None:
        yield Refusal(
            ("data",),
            "a model given by config brings no tokenizer",
            "add tokenizer: {train_vocab_size: 4096}, or tokenizer: {name: HUGGING-FACE-NAME}",
        )
        return
    tokens, rows = data.tokenizer.train_vocab_size, config.get("vocab_size")
    if tokens is not None and isinstance(rows, int) and tokens > rows:
        yield Refusal(
            ("data", "tokenizer", "train_vocab_size"),
            f"{tokens} tokens don't fit into the model's vocab_size, {rows}",
            f"write train_vocab_size: {rows}, or a larger {key}.config.vocab_size",
        )
    longest = config.get("max_position_embeddings")
    if isinstance(longest, int) and data.sequence_length > longest:
        yield Refusal(
            ("data", "sequence_length"),
            f"{data.sequence_length} tokens are more than the model's max_position_embeddings, {longest}",
            f"write sequence_length: {longest}, or a larger {key}.config.max_position_embeddings",
        )
