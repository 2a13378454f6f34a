"""Good: gradients of four micro batches, one update a step."""

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
session = Session.open()
session.track(model=model, optimizer=optimizer)
for step in session.steps(1000):
    for _ in range(4):
        loss = model(torch.randn(4, 4)).square().mean() / 4
        loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
