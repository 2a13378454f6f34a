"""Distillation from a frozen teacher

Models: exact
"""

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
teacher = nn.Linear(4, 1).requires_grad_(False).eval()
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
session.track(model=model, optimizer=optimizer, teacher=teacher)
for _ in session.steps(8):
    x = torch.randn(2, 4)
    loss = (model(x) - teacher(x)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    session.log(loss=loss.item())
