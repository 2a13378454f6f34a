"""`best` and `patience` in a tracked dict

Variables of the loop: exact
"""

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
state = {"best": float("inf"), "patience": 0}
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
session.track(model=model, optimizer=optimizer, state=state)
for _ in session.steps(8):
    loss = model(torch.randn(2, 4)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if loss.item() < state["best"]:
        state["best"], state["patience"] = loss.item(), 0
    else:
        state["patience"] += 1
    session.log(**state)
    session.log(loss=loss.item())
