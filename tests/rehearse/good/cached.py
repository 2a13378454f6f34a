"""Good: what was made once is kept in a cache, which makes nothing else of it."""

import functools

import torch
from spot_training import Session
from torch import nn


@functools.cache
def rows(at):
    return torch.full((16, 4), 0.1 * at)


torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
kept_in_cache = {}
session = Session.open()
session.track(model=model, optimizer=optimizer)
for step in session.steps(1000):
    x = kept_in_cache.setdefault(step % 5, torch.full((16, 4), 0.1 * (step % 5))) + rows(step % 3)
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
