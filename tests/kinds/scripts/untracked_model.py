"""A second model whose optimizer is tracked, and that isn't

Models: optimizer holds a parameter that nothing tracked has, float32[1, 4]: track the module that it belongs to
"""

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
d = nn.Linear(4, 1)
optimizer = torch.optim.AdamW([*model.parameters(), *d.parameters()], lr=0.01)
session.track(model=model, optimizer=optimizer)
for _ in session.steps(8):
    x = torch.randn(2, 4)
    loss = (model(x) - d(x)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
