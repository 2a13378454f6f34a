"""bfloat16 parameters with float32 masters

Models: exact
"""

import copy

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
small = copy.deepcopy(model).to(torch.bfloat16)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
session.track(model=model, small=small, optimizer=optimizer)
for _ in session.steps(8):
    loss = small(torch.randn(2, 4, dtype=torch.bfloat16)).float().square().mean()
    loss.backward()
    for p, q in zip(model.parameters(), small.parameters(), strict=True):
        p.grad = q.grad.float()
    optimizer.step()
    with torch.no_grad():
        for p, q in zip(model.parameters(), small.parameters(), strict=True):
            q.copy_(p)
            q.grad = None
    session.log(loss=loss.item())
