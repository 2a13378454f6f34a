"""A buffer that is not persistent, and changes

Models: exact
"""

import torch
from spot_training import Session
from torch import nn


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 1)
        self.register_buffer("mean", torch.zeros(4), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.mean.lerp_(x.mean(0), 0.1)
        return self.lin(x - self.mean)


torch.manual_seed(0)
session = Session.open()
model = Net()
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
session.track(model=model, optimizer=optimizer)
for _ in session.steps(8):
    loss = model(torch.randn(2, 4)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    session.log(loss=loss.item())
