"""Fault: the next batch is fetched at the end of the step before it."""

import torch
from spot_training import Session
from torch import nn

NAMES = ["at", "x"]


def batch(at):
    return torch.full((16, 4), 0.1 * (at % 5))


torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
at = 0
x = batch(at)
session = Session.open()
session.track(model=model, optimizer=optimizer)
for step in session.steps(1000):
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
    at += 1
    x = batch(at)
