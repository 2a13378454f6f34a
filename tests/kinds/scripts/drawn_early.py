"""Random numbers drawn between `track()` and the first step

Random numbers: random numbers (torch.cpu) were drawn between session.track() and the first step
"""

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
session.track(model=model, optimizer=optimizer)
fixed = torch.randn(1, 4)
for _ in session.steps(8):
    loss = model(torch.randn(2, 4) + fixed).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
