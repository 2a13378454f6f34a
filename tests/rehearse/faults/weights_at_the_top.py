"""Fault: weights are clipped in the middle of a step, outside any update."""

import torch
from spot_training import Session
from torch import nn

NAMES = ["0.weight"]

torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
session = Session.open()
session.track(model=model, optimizer=optimizer)
for step in session.steps(1000):
    with torch.no_grad():
        for weight in model.parameters():
            weight.clamp_(-0.3, 0.3)
    loss = model(torch.randn(16, 4)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
