"""The run file's `model.arr_coc`: how an image is shared out among tokens."""

import math
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from agent.config.refusal import Many, Refusal, Section
from agent.config.units import Steps

Ways = Literal[
    "all",
    "no_propositional",
    "no_perspectival",
    "no_participatory",
    "only_propositional",
    "only_perspectival",
    "only_participatory",
]
Reduction = Literal["learned", "random", "uniform", "pooled"]
NAMES = ("propositional", "perspectival", "participatory")
COLLAPSE = 0.1
TEXTURE = 32
"""Places along a side of the scores."""


class ArrCoc(Section):
    """Which regions of an image are worth how many tokens, for a question."""

    budgets: Annotated[Many[Annotated[int, Field(ge=1)]], Field(min_length=1)]
    """Tokens that an image costs, kept exactly. Of several, each optimizer step draws one, and evaluations measure
    each. Unit: tokens. Default: required."""

    whole_steps: Steps = Field(default=0, ge=0)
    """The first steps have the largest budget: first it is learnt to read, then to choose. Unit: steps. Default: 0."""

    regions: int = Field(default=4, ge=1, le=TEXTURE)
    """An image is regions x regions regions. Unit: regions along a side. Default: 4."""

    levels: Annotated[Many[Annotated[int, Field(ge=0)]], Field(min_length=2)] = (0, 1, 4)
    """Levels of detail: a region becomes one of these numbers of tokens, squares in ascending order. Unit: tokens.
    Default: [0, 1, 4]."""

    ways: Ways = "all"
    """Ways of knowing that score an image; one that is ablated contributes nothing, and the others share its weight.
    Default: all."""

    reduction: Reduction = "learned"
    """What chooses the tokens: `learned` by relevance; or, to compare with, `random` patches (by sample), a `uniform`
    grid of patches, or cells of the image that are `pooled`. Default: learned."""

    width: int = Field(default=64, ge=8)
    """Channels of the adapter. Unit: channels. Default: 64."""

    layers: int = Field(default=1, ge=1)
    """Blocks of the adapter, of self-attention, cross-attention and MLP. Unit: blocks. Default: 1."""

    heads: int = Field(default=4, ge=1)
    """Attention heads of the adapter. Unit: heads. Default: 4."""

    score_width: int = Field(default=32, ge=4)
    """Channels in the scorers and the balancer. Unit: channels. Default: 32."""

    efficiency_weight: float = Field(default=0.01, ge=0, allow_inf_nan=False)
    """What relevance everywhere costs, beside the answer's loss. Unit: none. Default: 0.01."""

    diversity_weight: float = Field(default=0.01, ge=0, allow_inf_nan=False)
    """What it costs that the ways score alike. Unit: none. Default: 0.01."""

    noise: float = Field(default=0.2, ge=0, allow_inf_nan=False)
    """While training the choice is swayed at random by this share of the relevance's scale. Unit: fraction.
    Default: 0.2."""

    @property
    def names(self) -> tuple[str, ...]:
        """The ways that score."""
        if self.ways == "all":
            return NAMES
        which, name = self.ways.split("_")
        return tuple(way for way in NAMES if (way == name) == (which == "only"))

    def refusals(self) -> Iterator[Refusal]:
        if TEXTURE % self.regions:
            yield Refusal(
                ("regions",), f"{self.regions} regions don't cut scores of {TEXTURE} x {TEXTURE} evenly",
                "write 1, 2, 4, 8, 16 or 32",
            )  # fmt: skip
        for place, level in enumerate(self.levels):
            if math.isqrt(level) ** 2 != level:
                side = math.isqrt(level)
                yield Refusal(
                    ("levels", place), f"{level} tokens are no square", f"write {side**2} or {(side + 1) ** 2}"
                )
            if place and level <= self.levels[place - 1]:
                yield Refusal(("levels", place), "levels of detail ascend", "sort them, each once")
        for place, budget in enumerate(self.budgets):
            if budget in self.budgets[:place]:
                yield Refusal(("budgets", place), f"{budget} is listed twice", "leave it out")
            if (near := self._near(budget)) and self.reduction == "learned":
                yield Refusal(
                    ("budgets", place),
                    f"{self.regions**2} regions of {' or '.join(map(str, self.levels))} tokens can't have {budget} "
                    f"together",
                    f"write {' or '.join(map(str, near))}",
                )
        if self.width % self.heads:
            yield Refusal(
                ("heads",), f"{self.heads} heads don't share a width of {self.width} evenly", "write a divisor of it"
            )
        if self.efficiency_weight >= COLLAPSE:
            yield Refusal(
                ("efficiency_weight",),
                f"from {COLLAPSE} on everything becomes irrelevant, whatever the answer needs",
                "write 0.01, or at least less than 0.1",
            )

    def _near(self, budget: int) -> list[int]:
        """The budgets next to this one that the levels add up to; [] if this one is such."""
        ordered = sorted(set(self.levels))
        steps, regions = [level - ordered[0] for level in ordered], self.regions**2
        fewest = {0: 0}  # how many regions must be above the lowest level, to spend so much more
        for spent in range(1, regions * steps[-1] + 1):
            ways = [fewest[spent - step] for step in steps[1:] if step <= spent and spent - step in fewest]
            if ways and min(ways) < regions:
                fewest[spent] = min(ways) + 1
        reached = [regions * ordered[0] + spent for spent in fewest]
        if budget in reached:
            return []
        below, above = [r for r in reached if r < budget], [r for r in reached if r > budget]
        return [*([max(below)] if below else []), *([min(above)] if above else [])]
