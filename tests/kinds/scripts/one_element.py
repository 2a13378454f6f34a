"""One-element tensors: a scalar parameter, a 0-dim buffer

Kinds of tensors: exact
"""

import torch
from spot_training import Session
from torch import nn


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin, self.scale = nn.Linear(4, 1), nn.Parameter(torch.tensor(0.1))
        self.register_buffer("seen", torch.tensor(0, dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return self.lin(x) * self.scale / self.seen


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
