"""LBFGS, with a closure that is called several times

Optimizers: exact
"""

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(0)
session = Session.open()
model = nn.Linear(4, 1)
optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
session.track(model=model, optimizer=optimizer)
for _ in session.steps(8):
    x = torch.randn(8, 4)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()  # noqa: B023
        loss.backward()
        return loss

    session.log(loss=optimizer.step(closure).item())
