"""A metric of the same make: values in attributes, an empty `state_dict()`

Models: `mean.total` (metric.py:LINE) carries over from one step to the next and is not tracked
"""

import torch
from spot_training import Session
from torch import nn


class Mean(nn.Module):
    """As torchmetrics does: states are attributes, and not persistent by default."""

    def __init__(self) -> None:
        super().__init__()
        self.total, self.count = torch.tensor(0.0), torch.tensor(0)

    def update(self, value: torch.Tensor) -> None:
        self.total = self.total + value
        self.count = self.count + 1

    def compute(self) -> torch.Tensor:
        return self.total / self.count

    def reset(self) -> None:
        self.total, self.count = torch.tensor(0.0), torch.tensor(0)


torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
mean = Mean()
session.track(model=model, optimizer=optimizer, mean=mean)
for _ in session.steps(8):
    loss = model(torch.randn(2, 4)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    mean.update(loss.detach())
    session.log(mean=mean.compute().item())
