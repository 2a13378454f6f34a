"""Fault: a replay buffer is not tracked."""

import collections

import torch
from spot_training import Session
from torch import nn

NAMES = ["replay"]

torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
replay = collections.deque(maxlen=8)
session = Session.open()
session.track(model=model, optimizer=optimizer)
for step in session.steps(1000):
    replay.append(torch.randn(16, 4))
    x = replay[step % len(replay)]
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
