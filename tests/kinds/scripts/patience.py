"""`patience` as a variable, in a function

Variables of the loop: `patience` (patience.py:LINE) carries over from one step to the next and is not tracked
"""

import torch
from spot_training import Session
from torch import nn


def train() -> None:
    torch.manual_seed(0)
    session = Session.open()
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    session.track(model=model, optimizer=optimizer)
    patience = 0
    for _ in session.steps(8):
        loss = model(torch.randn(2, 4)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        patience = patience + 1 if loss.item() > 0.1 else 0
        if patience > 5:
            break


train()
