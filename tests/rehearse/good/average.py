"""Good: a moving average of the weights, tracked and evaluated."""

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
session = Session.open()
session.track(model=model, optimizer=optimizer, average=average)
for step in session.steps(1000):
    loss = model(torch.randn(16, 4)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
    average.update_parameters(model)
    if step % 4 == 3:
        with torch.no_grad():
            session.log(average=average(torch.ones(4, 4)).mean().item())
