"""torch's, NumPy's and Python's own random numbers, in the step and behind it

Random numbers: exact
"""

import random

import numpy as np
import torch
from spot_training import Session
from torch import nn

torch.manual_seed(0)
random.seed(1)
np.random.seed(2)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
session.track(model=model, optimizer=optimizer)
for _ in session.steps(8):
    loss = model(torch.randn(2, 4) * random.random() + float(np.random.rand())).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    session.log(dice=random.random(), noise=float(np.random.standard_normal()))
    session.log(loss=loss.item())
