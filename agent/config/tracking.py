"""Where metrics go besides the run's own bucket, which stays the truth."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from agent.config.refusal import Refusal, Section
from agent.config.units import Seconds, written

Name = Annotated[str, Field(min_length=1)]


class Wandb(Section):
    """Weights & Biases."""

    project: Name
    """The project. Default: required."""

    entity: Name | None = None
    """The user or team. Default: null (the account's own)."""

    sender: Literal["agent", "program"] | None = None
    """Who sends: `agent` sends what is committed, each step once; `program` is one that calls `wandb.init()` itself,
    and goes on in one W&B run. Default: null (`agent`; for kind command `program`)."""


class TensorBoard(Section):
    """TensorBoard's event files, in the run's bucket: `tensorboard --logdir gs://BUCKET/PREFIX/RUN_ID/FOLDER`."""

    folder: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")] = "tensorboard"
    """The folder, below the run's own. Default: tensorboard."""


class Tracking(Section):
    """Where metrics go besides the run's own files. What is committed is sent, never what may be trained again."""

    every: Seconds = written("30 s", gt=0)
    """How often it is looked for committed steps. Unit: duration. Default: 30 s."""

    wandb: Wandb | None = None
    """Weights & Biases. Default: null (not used)."""

    tensorboard: TensorBoard | None = None
    """TensorBoard. Default: null (not used)."""

    def refusals(self) -> Iterator[Refusal]:
        taken = (
            "rolling",
            "milestones",
            "line",
            "results",
            "metrics",
            "tokens",
            "hours",
            "boots",
            "events",
            "tracking",
        )
        if self.tensorboard and self.tensorboard.folder in taken:
            yield Refusal(
                ("tensorboard", "folder"), f"the run keeps other things in {self.tensorboard.folder}", "leave it out"
            )
