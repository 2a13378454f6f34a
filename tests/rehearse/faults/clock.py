"""Fault: the learning rate depends on the time of day, so that no two runs are the same."""

import time

import torch
from spot_training import Session
from torch import nn

NAMES = ["rate"]

torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
session = Session.open()
session.track(model=model, optimizer=optimizer)
for step in session.steps(1000):
    rate = 1e-3 * (1 + time.time() % 1)
    optimizer.param_groups[0]["lr"] = rate
    loss = model(torch.randn(16, 4)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
