"""Ranger-like: an optimizer whose slow weights are attributes outside its `state_dict()`

Optimizers: exact
"""

import torch
from spot_training import Session
from torch import nn


class Ranger(torch.optim.RAdam):
    def __init__(self, parameters, lr: float = 0.01) -> None:
        super().__init__(parameters, lr=lr)
        self.slow = [p.detach().clone() for group in self.param_groups for p in group["params"]]
        self.count = 0

    @torch.no_grad()
    def step(self, closure=None) -> None:
        super().step(closure)
        self.count += 1
        if self.count % 3 == 0:
            for p, q in zip((p for group in self.param_groups for p in group["params"]), self.slow, strict=True):
                q.lerp_(p, 0.5)
                p.copy_(q)


torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = Ranger(model.parameters())
session.track(model=model, optimizer=optimizer)
for _ in session.steps(8):
    loss = model(torch.randn(2, 4)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    session.log(loss=loss.item())
