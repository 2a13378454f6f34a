"""Batches that are skipped when memory runs out in backward

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
    try:
        loss = model(torch.randn(2, 4)).square().mean()
        if step == 2:
            raise RuntimeError("CUDA out of memory")
        loss.backward()
    except RuntimeError:
        optimizer.zero_grad(set_to_none=True)
        continue
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    session.log(loss=loss.item())
