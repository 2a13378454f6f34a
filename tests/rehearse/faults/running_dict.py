"""Fault: running statistics are in a dict that is not tracked."""

import torch
from spot_training import Session
from torch import nn

NAMES = ["running"]

torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
running = {"mean": 0.0}
session = Session.open()
session.track(model=model, optimizer=optimizer)
for step in session.steps(1000):
    loss = model(torch.randn(16, 4) - running["mean"]).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
    running["mean"] = 0.9 * running["mean"] + 0.1 * loss.item()
