"""The tension balancer: three scores, each right in its way, become one map of relevance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from workloads.arr_coc.scorers import WAYS

STATISTICS = 3


class TensionBalancer(nn.Module):
    """Three opponent tensions, each set anew for each image and question:

    - compress <-> particularize: what is dense in information, or what the question is after
    - exploit <-> explore: what scores highest, or a look at the rest too
    - focus <-> diversify: few places far above the others, or many alike
    """

    def __init__(self, width: int, query_width: int, ways: Sequence[str]) -> None:
        """`ways`: those of `WAYS` that are not ablated."""
        super().__init__()
        self.ways = tuple(ways)
        self.tensions = nn.Sequential(
            nn.Linear(STATISTICS * len(ways) + query_width, width), nn.GELU(), nn.Linear(width, 3)
        )
        self.salience = nn.Parameter(torch.tensor(0.0)) if "perspectival" in ways and len(ways) > 1 else None
        """The pull of the perspectival way, which stands on neither side of the first tension."""

    def forward(self, scores: dict[str, Tensor], query: Tensor) -> tuple[Tensor, Tensor]:
        """Scores [B, H, W] by way, and [B, query_width] -> relevance [B, H, W]
        of 0 to 1, and each way's weight, [B, 3]: they add up to 1, and an ablated way's is 0.
        """
        tensions = self.tensions(torch.cat([*(_statistics(scores[way]) for way in self.ways), query], dim=1))
        compress, exploit, focus = tensions.tanh().unbind(1)

        between = torch.zeros_like(compress) if self.salience is None else self.salience.expand_as(compress)
        drive = {"propositional": compress, "perspectival": between, "participatory": -compress}
        nothing = torch.full_like(compress, -torch.inf)
        pull = torch.stack([drive[way] if way in self.ways else nothing for way in WAYS], dim=1)
        weights = (2 * pull).softmax(dim=1)
        parts = [weights[:, place, None, None] * scores[way] for place, way in enumerate(WAYS) if way in self.ways]
        mixed = torch.stack(parts).sum(0)

        mean = mixed.mean(dim=(1, 2), keepdim=True)
        spread = (mixed - mean).square().mean(dim=(1, 2), keepdim=True).add(1e-6).sqrt()
        kept = (1 + exploit[:, None, None]) / 2  # what is not exploited is shared out evenly: it is explored
        sharpness = 2 ** (1 + focus[:, None, None])
        return (sharpness * kept * (mixed - mean) / spread).sigmoid(), weights


def _statistics(score: Tensor) -> Tensor:
    """[B, H, W] -> mean, deviation and highest, [B, 3]."""
    flat = score.flatten(1)
    mean = flat.mean(1)
    return torch.stack([mean, (flat - mean[:, None]).square().mean(1).add(1e-6).sqrt(), flat.amax(1)], dim=1)
