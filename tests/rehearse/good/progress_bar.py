"""Good: a progress bar around the steps."""

import torch
from spot_training import Session
from torch import nn


class Bar:
    """As tqdm does: passes on what it is given, and counts for people."""

    __module__ = "tqdm.std"

    def __init__(self, steps):
        self.steps, self.n = steps, 0

    def __iter__(self):
        for step in self.steps:
            yield step
            self.n += 1


torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
session = Session.open()
session.track(model=model, optimizer=optimizer)
for step in Bar(session.steps(1000)):
    loss = model(torch.randn(16, 4)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
