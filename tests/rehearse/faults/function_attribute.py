"""Fault: a function keeps a count as its attribute."""

import torch
from spot_training import Session
from torch import nn

NAMES = ["batch.calls"]


def batch():
    batch.calls += 1
    return torch.full((16, 4), 0.1 * (batch.calls % 7))


batch.calls = 0
torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
session = Session.open()
session.track(model=model, optimizer=optimizer)
for step in session.steps(1000):
    loss = model(batch()).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
