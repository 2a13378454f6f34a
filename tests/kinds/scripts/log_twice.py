"""Several `log()` calls in a step, before and behind the update

Ends and metrics: exact
"""

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
session.track(model=model, optimizer=optimizer)
for _ in session.steps(8):
    loss = model(torch.randn(2, 4)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    session.log(norm=torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
    optimizer.step()
    session.log(behind=1)
    session.log(loss=loss.item())
