"""Parameters without a module

Kinds of tensors: exact
"""

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(0)
session = Session.open()
mse = nn.MSELoss()
w, b = nn.Parameter(torch.randn(4, 1)), nn.Parameter(torch.zeros(1))
optimizer = torch.optim.Adam([w, b], lr=0.01)
session.track(w=w, b=b, optimizer=optimizer)
for _ in session.steps(8):
    loss = mse(torch.randn(2, 4) @ w + b, torch.zeros(2, 1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    session.log(loss=loss.item())
