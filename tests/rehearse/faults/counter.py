"""Fault: an itertools.count chooses the batch."""

import itertools

import torch
from spot_training import Session
from torch import nn

NAMES = ["ticks"]

torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
ticks = itertools.count()
session = Session.open()
session.track(model=model, optimizer=optimizer)
for step in session.steps(1000):
    x = torch.full((16, 4), 0.01 * next(ticks))
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
