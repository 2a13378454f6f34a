"""An attribute of the model that the loop changes

Models: `model.temperature` (model_attribute.py:LINE) carries over from one step to the next and is not tracked
"""

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
model.temperature = 1.0
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
session.track(model=model, optimizer=optimizer)
for _ in session.steps(8):
    loss = model(torch.randn(2, 4)).square().mean() / model.temperature
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    model.temperature = max(0.1, model.temperature * 0.9)
    session.log(loss=loss.item())
