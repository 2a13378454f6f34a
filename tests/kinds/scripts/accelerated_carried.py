"""Accelerate: `best` as a variable of the loop

Frameworks: `best` (accelerated_carried.py:LINE) carries over from one step to the next and is not tracked
"""

import torch
from accelerate import Accelerator
from spot_training import accelerate

accelerator = Accelerator(cpu=True)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
train = torch.utils.data.DataLoader(torch.randn(10, 4), batch_size=2, shuffle=True)
model, optimizer, train = accelerator.prepare(model, optimizer, train)
best = 1e9
session = accelerate.session(accelerator)
for _ in session.epochs(2):
    for x in session.batches(train):
        loss = model(x).square().mean()
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        best = min(best, loss.item())
        session.log(best=best)
