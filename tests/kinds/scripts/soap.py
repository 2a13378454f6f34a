"""SOAP-like: lists of matrices that begin as None

Optimizers: exact
"""

import torch
from spot_training import Session
from torch import nn


class Soap(torch.optim.Optimizer):
    """Keeps its preconditioners in lists, and its bases only once they are known."""

    def __init__(self, parameters, lr: float = 0.01) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                matrix = p.grad.reshape(p.shape[0], -1)
                if not state:
                    state.update(step=0, GG=[torch.zeros(n, n) for n in matrix.shape], Q=None)
                state["step"] += 1
                state["GG"][0].lerp_(matrix @ matrix.T, 0.1)
                state["GG"][1].lerp_(matrix.T @ matrix, 0.1)
                if state["step"] % 2 == 0:
                    state["Q"] = [torch.linalg.eigh(g + 1e-6 * torch.eye(len(g)))[1] for g in state["GG"]]
                if state["Q"] is not None:
                    left, right = state["Q"]
                    matrix = left @ torch.sign(left.T @ matrix @ right) @ right.T
                p.add_(matrix.reshape(p.shape), alpha=-group["lr"])


torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = Soap(model.parameters())
session.track(model=model, optimizer=optimizer)
for _ in session.steps(8):
    loss = model(torch.randn(2, 4)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    session.log(loss=loss.item())
