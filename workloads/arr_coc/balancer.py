"""The tension balancer: three scores, each right in its way, become one map of relevance."""

from __future__ import annotations

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

    def __init__(self, width: int, query_width: int) -> None:
        super().__init__()
        self.tensions = nn.Sequential(
            nn.Linear(STATISTICS * len(WAYS) + query_width, width), nn.GELU(), nn.Linear(width, 3)
        )
        self.salience = nn.Parameter(torch.tensor(0.0))
        """Of the perspectival way, which stands on neither side of the first tension."""

    def forward(self, scores: dict[str, Tensor], query: Tensor) -> tuple[Tensor, Tensor]:
        """Scores [B, H, W] by way, those of `WAYS` that are not ablated, and [B, query_width] -> relevance [B, H, W]
        of 0 to 1, and each way's weight, [B, 3]: they add up to 1, and an ablated way's is 0.
        """
        nothing = torch.zeros(len(query), STATISTICS, device=query.device)
        statistics = [_statistics(scores[way]) if way in scores else nothing for way in WAYS]
        tensions = self.tensions(torch.cat([*statistics, query], dim=1))
        compress, exploit, focus = tensions.tanh().unbind(1)

        drive = {
            "propositional": compress,
            "perspectival": self.salience.expand_as(compress),
            "participatory": -compress,
        }
        pull = torch.stack([drive[way] if way in scores else torch.full_like(compress, -torch.inf) for way in WAYS], 1)
        weights = (2 * pull).softmax(dim=1)
        mixed = sum(weights[:, place, None, None] * scores[way] for place, way in enumerate(WAYS) if way in scores)
        assert isinstance(mixed, Tensor)

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
