"""SAM as an optimizer of its own

Loops: exact
"""

import torch
from spot_training import Session
from torch import nn


class Sam(torch.optim.SGD):
    @torch.no_grad()
    def step(self, closure):
        parameters = [p for group in self.param_groups for p in group["params"]]
        with torch.enable_grad():
            loss = closure()
        moved = [p.grad.sign() * 0.01 for p in parameters]
        torch._foreach_add_(parameters, moved)
        with torch.enable_grad():
            closure()
        torch._foreach_sub_(parameters, moved)
        super().step()
        return loss


torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = Sam(model.parameters(), lr=0.01, momentum=0.9)
session.track(model=model, optimizer=optimizer)
for _ in session.steps(8):
    x = torch.randn(2, 4)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(x).square().mean()  # noqa: B023
        loss.backward()
        return loss

    session.log(loss=optimizer.step(closure).item())
