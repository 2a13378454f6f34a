"""The attention allocator: how many tokens each region of an image is worth, under a budget that is kept exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from workloads.arr_coc.cells import Cells, cut


class BudgetError(ValueError):
    """A budget that the levels of detail can't add up to. Says which are near."""


@dataclass(frozen=True)
class Allocation:
    """What was chosen for a batch."""

    chosen: Tensor
    """[B, budget] int64: the cells that become tokens, region by region."""
    gates: Tensor
    """[B, budget]: 1 each, through which the gradient gets to the relevance."""
    tokens: Tensor
    """[B, regions] int64: each region's level of detail; they add up to the budget."""


class AttentionAllocator(nn.Module):
    """An image in regions x regions regions, each at one of a few levels of detail: so many tokens, 0 of them if 0 is
    among the levels. The choice is the one of the highest value, relevance times what the level is worth, whose tokens
    add up to the budget to the token.

    A hard choice has no gradient. So each chosen cell comes with a gate: 1, with the gradient of its value ("straight
    through").
    """

    def __init__(self, *, side: int, regions: int, levels: tuple[int, ...]) -> None:
        """`side`: patches along the image's side, a multiple of `regions`; `levels`: squares, ascending."""
        super().__init__()
        self.regions, self.levels = regions, levels
        extent, boxes, owners, ranks = side // regions, [], [], []
        for region, (top, left, _, _) in enumerate(cut(side, side, regions, regions)):
            for rank, level in enumerate(levels):
                if level:
                    boxes += cut(extent, extent, math.isqrt(level), math.isqrt(level), top=top, left=left)
                owners += [region] * level
                ranks += [rank] * level
        self.cells = Cells(side, torch.tensor(boxes))
        self.register_buffer("owner", torch.tensor(owners), persistent=False)
        self.register_buffer("rank", torch.tensor(ranks), persistent=False)
        steps = torch.tensor([math.log1p(level) for level in levels]).diff()
        self.worth_steps = nn.Parameter(steps.expm1().log())  # softplus gives them back
        """What each level is worth more than the one below it: learnt, and always more than 0."""

    owner: Tensor
    rank: Tensor

    def cells_on(self, device: torch.device) -> Cells:
        """All cells there are, to compute with."""
        return Cells(self.cells.side, self.cells.boxes.to(device))

    def values(self, relevance: Tensor) -> Tensor:
        """[B, H, W] of 0 to 1 -> what each region is worth at each level, [B, regions^2, levels] of 0 to 1."""
        batch, height, width = relevance.shape
        tiles = relevance.view(batch, self.regions, height // self.regions, self.regions, width // self.regions)
        in_region = tiles.mean(dim=(2, 4)).flatten(1)
        worth = torch.cat([torch.zeros_like(self.worth_steps[:1]), nn.functional.softplus(self.worth_steps).cumsum(0)])
        return in_region[:, :, None] * (worth / worth[-1])

    def forward(self, relevance: Tensor, budget: int, *, noise: float = 0.0) -> Allocation:
        """Relevance [B, H, W], H and W multiples of `regions`. `noise`, while training: of how great a share of the
        relevance's scale the choice is swayed at random, so that what is never chosen is tried too.

        Raises:
            BudgetError: the levels can't add up to `budget`.
        """
        values = self.values(relevance)
        worth = values.detach()
        if noise:
            drawn = -torch.empty_like(worth[:, :, :1]).exponential_().log()  # Gumbel's
            worth = worth + noise * drawn * (worth / worth[..., -1:].clamp_min(1e-6))
        ranks = best_ranks(worth, self.levels, budget)
        mine = ranks[:, self.owner] == self.rank
        chosen = mine.nonzero()[:, 1].view(len(ranks), budget)
        value = values.flatten(1).gather(1, self.owner[chosen] * len(self.levels) + self.rank[chosen])
        tokens = torch.tensor(self.levels, device=ranks.device)[ranks]
        return Allocation(chosen, 1 + value - value.detach(), tokens)


@torch.no_grad()
def best_ranks(values: Tensor, levels: tuple[int, ...], budget: int) -> Tensor:
    """Values [B, R, L] -> the level of each region, [B, R] as its place in `levels`, of the highest sum of values whose
    tokens are exactly `budget`: a knapsack, solved region after region over what has been spent.

    Raises:
        BudgetError: there is no such choice.
    """
    batch, regions, _ = values.shape
    unit = math.gcd(*(level - levels[0] for level in levels[1:]))
    room, left_over = divmod(budget - regions * levels[0], unit)
    costs = [(level - levels[0]) // unit for level in levels]
    if room < 0 or room > regions * costs[-1] or left_over:
        raise BudgetError(
            f"{regions} regions of {' or '.join(map(str, levels))} tokens can't have {budget} together: from "
            f"{regions * levels[0]} to {regions * levels[-1]}, in steps of {unit}"
        )
    best = values.new_full((batch, room + 1), -torch.inf)
    best[:, 0] = 0.0
    taken = []
    for region in range(regions):
        ways = values.new_full((batch, len(levels), room + 1), -torch.inf)
        for rank, cost in enumerate(costs):
            if cost <= room:
                ways[:, rank, cost:] = best[:, : room + 1 - cost] + values[:, region, rank, None]
        best, rank_of = ways.max(dim=1)
        taken.append(rank_of)
    if not best[:, room].isfinite().all():
        raise BudgetError(f"{regions} regions of {' or '.join(map(str, levels))} tokens can't have {budget} together")
    spent = torch.full((batch, 1), room, device=values.device)
    price = torch.tensor(costs, device=values.device)
    ranks = []
    for rank_of in reversed(taken):
        ranks.append(rank_of.gather(1, spent))
        spent = spent - price[ranks[-1]]
    return torch.cat(ranks[::-1], dim=1)
