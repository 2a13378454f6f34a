"""Parameter groups that come in another order after a resume

Optimizers: optimizer's parameter group 0 held model.0.weight (of 2): in another order?
"""

from pathlib import Path

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
started = Path("started")
groups = [
    {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1, "name": "decayed"},
    {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0, "name": "plain"},
]
if started.exists():
    groups.reverse()
started.touch()
optimizer = torch.optim.AdamW(groups, lr=0.01)
session.track(model=model, optimizer=optimizer)
for _ in session.steps(8):
    loss = model(torch.randn(2, 4)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    session.log(loss=loss.item())
