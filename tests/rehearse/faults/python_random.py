"""Fault: a random.Random of one's own scales the batches."""

import random

import torch
from spot_training import Session
from torch import nn

NAMES = ["dice"]

torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
dice = random.Random(5)
session = Session.open()
session.track(model=model, optimizer=optimizer)
for step in session.steps(1000):
    scale = dice.uniform(0.5, 1.5)
    loss = model(scale * torch.randn(16, 4)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
