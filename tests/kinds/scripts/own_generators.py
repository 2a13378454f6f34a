"""NumPy's and Python's generators of one's own

Random numbers: exact
"""

import random

import numpy as np
import torch
from spot_training import Session
from torch import nn

torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
gauss, old, dice = np.random.default_rng(1), np.random.RandomState(2), random.Random(3)
session.track(model=model, optimizer=optimizer, gauss=gauss, old=old, dice=dice)
for _ in session.steps(8):
    x = torch.from_numpy(gauss.standard_normal((2, 4)) + old.randn(2, 4)).float() * dice.random()
    loss = model(x).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    session.log(loss=loss.item())
