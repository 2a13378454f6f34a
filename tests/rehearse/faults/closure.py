"""Fault: a closure counts in a variable of the function around it."""

import torch
from spot_training import Session
from torch import nn

NAMES = ["calls"]


def make_batch():
    calls = 0

    def batch():
        nonlocal calls
        calls += 1
        return torch.full((16, 4), 0.1 * (calls % 7))

    return batch


torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
batch = make_batch()
session = Session.open()
session.track(model=model, optimizer=optimizer)
for step in session.steps(1000):
    loss = model(batch()).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
