"""Two optimizers in a list: `optimizers=[a, b]`

Loops: exact
"""

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizers = [torch.optim.Adam(model[0].parameters(), lr=0.01), torch.optim.SGD(model[2].parameters(), lr=0.1)]
session.track(model=model, optimizers=optimizers)
for _ in session.steps(8):
    loss = model(torch.randn(2, 4)).square().mean()
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    session.log(loss=loss.item())
