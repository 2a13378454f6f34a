"""Batches that are skipped on NaN, by an exception inside `update()`

Loops: exact
"""

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
session.track(model=model, optimizer=optimizer)
for step in session.steps(8):
    loss = model(torch.randn(2, 4)).square().mean() * (float("nan") if step in (2, 5) else 1.0)
    optimizer.zero_grad()
    try:
        loss.backward()
        with session.update():
            if not torch.isfinite(loss):
                raise FloatingPointError("a bad batch")
            optimizer.step()
    except FloatingPointError:
        session.log(skipped=True)
    session.log(loss=loss.item())
