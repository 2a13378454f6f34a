"""Fault: a count is kept on a class."""

import torch
from spot_training import Session
from torch import nn

NAMES = ["Progress.seen"]


class Progress:
    seen = 0


torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
session = Session.open()
session.track(model=model, optimizer=optimizer)
for step in session.steps(1000):
    Progress.seen += 1
    loss = model(torch.full((16, 4), 0.1 * (Progress.seen % 7))).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
