"""Fault: how hard the data is depends on a variable."""

import torch
from spot_training import Session
from torch import nn

NAMES = ["hard"]

torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
hard = 1.0
session = Session.open()
session.track(model=model, optimizer=optimizer)
for step in session.steps(1000):
    loss = model(hard * torch.randn(16, 4)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
    hard = hard * 1.1 if loss.item() > 0.05 else hard
