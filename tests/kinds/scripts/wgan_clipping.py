"""WGAN: weights clipped behind the step

Loops: exact
"""

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
session.track(model=model, optimizer=optimizer)
for _ in session.steps(8):
    loss = model(torch.randn(2, 4)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.clamp_(-0.3, 0.3)
    session.log(loss=loss.item())
