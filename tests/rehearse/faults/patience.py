"""Fault: early stopping counts in a variable, and lowers the learning rate by it."""

import torch
from spot_training import Session
from torch import nn

NAMES = ["bad", "last"]

torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
bad = 0
last = 9e9
session = Session.open()
session.track(model=model, optimizer=optimizer)
for step in session.steps(1000):
    loss = model(torch.randn(16, 4)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
    bad = bad + 1 if loss.item() > last else 0
    last = loss.item()
    if bad >= 2:
        optimizer.param_groups[0]["lr"] *= 0.5
