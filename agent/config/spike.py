"""What counts as a spike of a metric, and what is done about one."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from agent.config.refusal import Refusal, Section
from agent.config.units import CadenceText, written


class Spike(Section):
    """When the run goes back to its last good checkpoint: at a metric that is no number any more, or far above what it
    was."""

    metric: Annotated[str, Field(min_length=1)] = "loss"
    """What `session.log()` is looked at for. Default: loss."""

    factor: float = Field(default=3, gt=1, allow_inf_nan=False)
    """A value of more than so many times the median of those in the window before it is a spike. NaN and infinity
    always are. Unit: none. Default: 3."""

    window: CadenceText = written("50 steps")
    """The steps before, whose values make the median; three of them at least. Unit: steps. Default: 50 steps."""

    skip: bool = False
    """Whether the data of the step that spiked is passed over when the run comes to it again. A run that resumes
    exactly meets the same spike again without. Default: false."""

    times: int = Field(default=1, ge=1)
    """How often the run goes back in all; the next spike stops it. Unit: spikes. Default: 1."""

    def refusals(self) -> Iterator[Refusal]:
        if self.window.steps is None:
            yield Refusal(
                ("window",), f"{self.window} is no number of steps", 'write a number of steps, such as "50 steps"'
            )
        elif self.window.steps < 3:
            yield Refusal(("window",), "fewer than 3 values have no median to rest on", 'write "50 steps"')
