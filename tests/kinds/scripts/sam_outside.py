"""SAM by hand, outside

Loops: was changed in step
"""

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
session.track(model=model, optimizer=optimizer)
for _ in session.steps(8):
    x = torch.randn(2, 4)
    loss = model(x).square().mean()
    optimizer.zero_grad()
    loss.backward()
    with torch.no_grad():
        moved = [(p, p.grad.sign() * 0.01) for p in model.parameters()]
        for p, by in moved:
            p.add_(by)
    optimizer.zero_grad()
    model(x).square().mean().backward()
    with torch.no_grad():
        for p, by in moved:
            p.sub_(by)
    optimizer.step()
    session.log(loss=loss.item())
