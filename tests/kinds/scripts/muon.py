"""Muon for matrices, AdamW for the rest

Optimizers: exact
"""

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
muon = torch.optim.Muon([p for p in model.parameters() if p.ndim == 2], lr=0.01)
adamw = torch.optim.AdamW([p for p in model.parameters() if p.ndim != 2], lr=0.01)
session.track(model=model, muon=muon, adamw=adamw)
for _ in session.steps(8):
    loss = model(torch.randn(2, 4)).square().mean()
    loss.backward()
    for optimizer in (muon, adamw):
        optimizer.step()
        optimizer.zero_grad()
    session.log(loss=loss.item())
