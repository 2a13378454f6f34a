"""A VQ codebook in buffers, moved in the forward pass

Loops: exact
"""

import torch
from spot_training import Session
from torch import nn


class Codebook(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(4, 3)
        self.register_buffer("codes", torch.randn(5, 3))
        self.register_buffer("counts", torch.ones(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.encode(x)
        nearest = torch.cdist(z.detach(), self.codes).argmin(1)
        for row, code in zip(z.detach(), nearest.tolist(), strict=True):
            self.counts[code] += 1
            self.codes[code] += (row - self.codes[code]) / self.counts[code]
        return (z - self.codes[nearest]).square().mean()


torch.manual_seed(0)
session = Session.open()
model = Codebook()
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
session.track(model=model, optimizer=optimizer)
for _ in session.steps(8):
    loss = model(torch.randn(2, 4))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    session.log(loss=loss.item())
