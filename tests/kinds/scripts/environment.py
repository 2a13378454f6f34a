"""An object without `state_dict()` that is tracked

Variables of the loop: env is __main__.Env, which has no state_dict() and load_state_dict(): give it both
"""

import torch
from spot_training import Session
from torch import nn


class Env:
    def __init__(self) -> None:
        self.at = 0


torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
env = Env()
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
session.track(model=model, optimizer=optimizer, env=env)
for _ in session.steps(8):
    loss = model(torch.randn(2, 4)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    session.log(loss=loss.item())
