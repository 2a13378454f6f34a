"""Schedule-free-like: `optimizer.train()` and `.eval()` swap the weights

Optimizers: exact
"""

import torch
from spot_training import Session
from torch import nn


class ScheduleFree(torch.optim.Optimizer):
    def __init__(self, parameters, lr: float = 0.1) -> None:
        super().__init__(parameters, {"lr": lr, "k": 0, "train_mode": True})

    @torch.no_grad()
    def swap(self) -> None:
        for group in self.param_groups:
            group["train_mode"] = not group["train_mode"]
            for p in group["params"]:
                if "z" in self.state[p]:
                    p.lerp_(self.state[p]["z"], -1.0 if not group["train_mode"] else 0.5)

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            group["k"] += 1
            for p in group["params"]:
                z = self.state[p].setdefault("z", p.clone())
                z.sub_(p.grad, alpha=group["lr"])
                p.lerp_(z, 1 / group["k"])


torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = ScheduleFree(model.parameters())
session.track(model=model, optimizer=optimizer)
for _ in session.steps(8):
    loss = model(torch.randn(2, 4)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    optimizer.swap()
    val = model(torch.ones(1, 4)).item()
    optimizer.swap()
    session.log(val=val)
    session.log(loss=loss.item())
