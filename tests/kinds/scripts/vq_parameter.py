"""A VQ codebook that is a parameter, moved in the forward pass

Loops: was changed in step
"""

import torch
from spot_training import Session
from torch import nn


class Codebook(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(4, 3)
        self.codes = nn.Parameter(torch.randn(5, 3), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.encode(x)
        nearest = torch.cdist(z.detach(), self.codes).argmin(1)
        self.codes.data[nearest] = 0.9 * self.codes[nearest] + 0.1 * z.detach()
        return (z - self.codes[nearest]).square().mean()


torch.manual_seed(0)
session = Session.open()
model = Codebook()
optimizer = torch.optim.AdamW(model.encode.parameters(), lr=0.01)
session.track(model=model, optimizer=optimizer)
for _ in session.steps(8):
    loss = model(torch.randn(2, 4))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    session.log(loss=loss.item())
