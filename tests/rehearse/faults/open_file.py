"""Fault: the data is read on from an open file."""

from pathlib import Path

import torch
from spot_training import Session
from torch import nn

NAMES = ["file"]

torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
file = Path(__file__).open("rb", buffering=0)
session = Session.open()
session.track(model=model, optimizer=optimizer)
for step in session.steps(1000):
    x = torch.tensor(list(file.read(16))).reshape(4, 4) / 100
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
