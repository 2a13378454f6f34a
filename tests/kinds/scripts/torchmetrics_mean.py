"""A torchmetrics metric, whose `state_dict()` is empty

Models: exact
"""

import torch
from spot_training import Session
from torch import nn
from torchmetrics import MeanMetric

torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
mean = MeanMetric()
session.track(model=model, optimizer=optimizer, mean=mean)
for _ in session.steps(8):
    loss = model(torch.randn(2, 4)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    mean.update(loss.detach())
    session.log(mean=mean.compute().item())
