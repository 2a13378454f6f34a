"""Activation checkpointing, with dropout in it

Random numbers: exact
"""

import torch
from spot_training import Session
from torch import nn
from torch.utils.checkpoint import checkpoint

torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
session.track(model=model, optimizer=optimizer)
for _ in session.steps(8):
    loss = checkpoint(model, torch.randn(2, 4), use_reentrant=False).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    session.log(loss=loss.item())
