"""A GradScaler that isn't tracked

Averages and scalers: `scaler` (untracked_scaler.py:LINE) is a gradient scaler and is not tracked
"""

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
scaler = torch.amp.GradScaler("cpu", init_scale=16.0, growth_interval=2)
session.track(model=model, optimizer=optimizer)
for _ in session.steps(8):
    loss = model(torch.randn(2, 4)).square().mean()
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
    session.log(loss=loss.item(), scale=scaler.get_scale())
