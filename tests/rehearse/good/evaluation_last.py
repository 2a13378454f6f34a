"""Good: it evaluates behind the update, over a plain DataLoader, which draws a seed."""

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
data = torch.utils.data.TensorDataset(torch.arange(400.0).reshape(100, 4).sin())
held_out = torch.utils.data.DataLoader(data, batch_size=20)
session = Session.open()
session.track(model=model, optimizer=optimizer)
for step in session.steps(1000):
    loss = model(torch.randn(16, 4)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
    if step % 4 == 3:
        with session.phase("evaluating"), torch.no_grad():
            model.eval()
            session.log(held_out=sum(model(x).square().mean().item() for (x,) in held_out))
            model.train()
