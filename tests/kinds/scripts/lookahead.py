"""A Lookahead wrapper with a state of its own

Optimizers: exact
"""

import torch
from spot_training import Session
from torch import nn


class Lookahead:
    """Slow weights around another optimizer, as it is found on GitHub: no torch optimizer itself."""

    def __init__(self, base: torch.optim.Optimizer, k: int = 3, alpha: float = 0.5) -> None:
        self.base, self.k, self.alpha, self.count = base, k, alpha, 0
        self.param_groups = base.param_groups
        self.slow = [[p.detach().clone() for p in group["params"]] for group in self.param_groups]

    def zero_grad(self) -> None:
        self.base.zero_grad()

    @torch.no_grad()
    def step(self) -> None:
        self.base.step()
        self.count += 1
        if self.count % self.k == 0:
            for group, slow in zip(self.param_groups, self.slow, strict=True):
                for p, q in zip(group["params"], slow, strict=True):
                    q.lerp_(p, self.alpha)
                    p.copy_(q)

    def state_dict(self) -> dict:
        return {"base": self.base.state_dict(), "slow": self.slow, "count": self.count}

    def load_state_dict(self, state: dict) -> None:
        self.base.load_state_dict(state["base"])
        self.count = state["count"]
        for mine, theirs in zip(self.slow, state["slow"], strict=True):
            for p, q in zip(mine, theirs, strict=True):
                p.copy_(q)


torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = Lookahead(torch.optim.AdamW(model.parameters(), lr=0.01))
session.track(model=model, optimizer=optimizer)
for _ in session.steps(8):
    loss = model(torch.randn(2, 4)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    session.log(loss=loss.item())
