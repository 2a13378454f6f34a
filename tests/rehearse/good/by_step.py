"""Good: the batch is a function of the step's number alone."""

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
rows = torch.arange(400.0).reshape(100, 4).sin()
session = Session.open()
session.track(model=model, optimizer=optimizer)
for step in session.steps(1000):
    loss = model(rows[(step * 16 + torch.arange(16)) % 100]).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
