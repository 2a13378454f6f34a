"""A replay buffer: a tracked deque of tensors

Variables of the loop: exact
"""

from collections import deque

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
replay = deque(maxlen=5)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
session.track(model=model, optimizer=optimizer, replay=replay)
for _ in session.steps(8):
    replay.append(torch.randn(4))
    loss = model(torch.stack(list(replay))).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    session.log(loss=loss.item())
