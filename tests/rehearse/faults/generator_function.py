"""Fault: a generator function holds the position in the data."""

import torch
from spot_training import Session
from torch import nn

NAMES = ["stream"]


def walk():
    at = 0
    while True:
        yield torch.full((16, 4), 0.1 * (at % 7))
        at += 1


torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
stream = walk()
session = Session.open()
session.track(model=model, optimizer=optimizer)
for step in session.steps(1000):
    x = next(stream)
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
