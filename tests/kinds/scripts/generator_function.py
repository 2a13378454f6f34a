"""A generator function that draws each batch

Data: exact
"""

import torch
from spot_training import Session
from torch import nn


def batches():
    while True:
        yield torch.randn(2, 4)


torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
stream = batches()
session.track(model=model, optimizer=optimizer)
for _ in session.steps(8):
    x = next(stream)
    loss = model(x).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    session.log(loss=loss.item())
