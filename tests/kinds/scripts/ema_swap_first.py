"""An EMA swapped in for an evaluation at the top of the loop

Averages and scalers: was changed in step
"""

import copy

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
ema = copy.deepcopy(model).requires_grad_(False)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
session.track(model=model, ema=ema, optimizer=optimizer)
for _ in session.steps(8):
    kept = copy.deepcopy(model.state_dict())
    model.load_state_dict(ema.state_dict())
    session.log(val=model(torch.ones(1, 4)).item())
    model.load_state_dict(kept)
    loss = model(torch.randn(2, 4)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        for average, parameter in zip(ema.parameters(), model.parameters(), strict=True):
            average.lerp_(parameter, 0.1)
    session.log(loss=loss.item())
