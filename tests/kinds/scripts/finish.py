"""`with session.update():`, and `finish(save)` with a result

Loops: exact
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
    loss.backward()
    with session.update():
        optimizer.step()
        optimizer.zero_grad()
        session.log(loss=loss.item())
session.finish(lambda folder: torch.save(model.state_dict(), folder / "model.pt"))
