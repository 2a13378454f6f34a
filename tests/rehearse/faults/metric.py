"""Fault: a running metric is not tracked."""

import torch
from spot_training import Session
from torch import nn

NAMES = ["mean"]


class Mean:
    def __init__(self):
        self.total, self.count = 0.0, 0

    def add(self, value):
        self.total += value
        self.count += 1
        return self.total / self.count


torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
mean = Mean()
session = Session.open()
session.track(model=model, optimizer=optimizer)
for step in session.steps(1000):
    loss = model(torch.randn(16, 4)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    smooth = mean.add(loss.item())
    session.log(smooth=smooth)
    session.log(loss=loss.item())
