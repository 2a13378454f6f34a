"""Fault: a dataset counts what it gave."""

import torch
from spot_training import Session
from torch import nn

NAMES = ["rows.given", "rows"]


class Rows:
    def __init__(self):
        self.given = 0

    def next(self):
        self.given += 1
        return torch.full((16, 4), 0.1 * (self.given % 7))


torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
rows = Rows()
session = Session.open()
session.track(model=model, optimizer=optimizer)
for step in session.steps(1000):
    loss = model(rows.next()).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
