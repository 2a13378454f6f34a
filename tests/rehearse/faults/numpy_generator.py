"""Fault: a NumPy generator of one's own draws the batches."""

import numpy as np
import torch
from spot_training import Session
from torch import nn

NAMES = ["source"]

torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
source = np.random.default_rng(5)
session = Session.open()
session.track(model=model, optimizer=optimizer)
for step in session.steps(1000):
    x = torch.from_numpy(source.standard_normal((16, 4), dtype=np.float32))
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
