"""Fault: whether a layer was unfrozen is known to a variable alone."""

import torch
from spot_training import Session
from torch import nn

NAMES = ["unfrozen"]

torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
unfrozen = False
model[0].requires_grad_(False)
session = Session.open()
session.track(model=model, optimizer=optimizer)
for step in session.steps(1000):
    if step == 4:
        unfrozen = True
    if unfrozen:
        model[0].requires_grad_(True)
    loss = model(torch.randn(16, 4)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
