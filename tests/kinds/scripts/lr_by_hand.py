"""The learning rate as a function of the step, set by hand

Schedulers: exact
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
    for group in optimizer.param_groups:
        group["lr"] = 0.01 * min(1.0, (step + 1) / 5)
    loss = model(torch.randn(2, 4)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    session.log(loss=loss.item(), lr=optimizer.param_groups[0]["lr"])
