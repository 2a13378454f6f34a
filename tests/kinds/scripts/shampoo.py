"""Shampoo-like: state under integer keys and keys with dots

Optimizers: exact
"""

import torch
from spot_training import Session
from torch import nn


class Shampoo(torch.optim.Optimizer):
    def __init__(self, parameters, lr: float = 0.01) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["momentum.buffer"] = torch.zeros_like(p)
                    for dim, size in enumerate(p.shape):
                        state[dim] = {"precond": torch.eye(size) * 1e-3, ("inv", dim): torch.zeros(size, size)}
                grad = p.grad
                for dim in range(p.ndim):
                    flat = grad.transpose(0, dim).reshape(p.shape[dim], -1)
                    state[dim]["precond"].add_(flat @ flat.T)
                    state[dim][("inv", dim)] = torch.linalg.inv(state[dim]["precond"])
                state["momentum.buffer"].mul_(0.9).add_(grad)
                p.add_(state["momentum.buffer"], alpha=-group["lr"])


torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = Shampoo(model.parameters())
session.track(model=model, optimizer=optimizer)
for _ in session.steps(8):
    loss = model(torch.randn(2, 4)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    session.log(loss=loss.item())
