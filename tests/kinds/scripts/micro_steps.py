"""A session step per micro-batch: gradients carried over steps

Loops: the gradient of model.0.weight was carried from step 0 into step 1 of micro_steps.py:LINE: gradients are no
part of a checkpoint. Let one step of session.steps() be one whole update (accumulate inside its body), or call
optimizer.zero_grad() before the first backward()
"""

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
session.track(model=model, optimizer=optimizer)
for step in session.steps(8):
    loss = model(torch.randn(2, 4)).square().mean() / 2
    loss.backward()
    if step % 2:
        optimizer.step()
        optimizer.zero_grad()
    session.log(loss=loss.item())
