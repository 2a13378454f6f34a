"""Fault: when to evaluate, which draws random numbers, is counted in a variable."""

import torch
from spot_training import Session
from torch import nn

NAMES = ["since"]

torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
since = 0
session = Session.open()
session.track(model=model, optimizer=optimizer)
for step in session.steps(1000):
    loss = model(torch.randn(16, 4)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
    since += 1
    if since == 4:
        since = 0
        model(torch.randn(16, 4))
