"""Good: what is carried is in a tracked dataclass."""

from dataclasses import dataclass

import torch
from spot_training import Session
from torch import nn


@dataclass
class Progress:
    rows: int = 0
    mean: float = 0.0


torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
progress = Progress()
session = Session.open()
session.track(model=model, optimizer=optimizer, progress=progress)
for step in session.steps(1000):
    loss = model(torch.randn(16, 4)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
    progress.rows += 16
    progress.mean += (loss.item() - progress.mean) / (step + 1)
