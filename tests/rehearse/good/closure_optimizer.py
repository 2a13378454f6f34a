"""Good: L-BFGS, whose step calls the loss many times."""

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
session = Session.open()
session.track(model=model, optimizer=optimizer)
for step in session.steps(1000):
    x = torch.randn(16, 4)

    def closure():
        optimizer.zero_grad()
        loss = (model(x) - 1).square().mean()
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    session.log(loss=loss.item())
