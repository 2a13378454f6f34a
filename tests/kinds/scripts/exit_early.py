"""`sys.exit(0)` before the last step

Ends and metrics: exact
"""

import sys

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
session.track(model=model, optimizer=optimizer)
for step in session.steps(8):
    loss = model(torch.randn(2, 4)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    session.log(loss=loss.item())
    if step == 6:
        sys.exit(0)
