"""Fault: the iterator over a plain shuffled DataLoader begins anew."""

import torch
from spot_training import Session
from torch import nn

NAMES = ["batches", "loader"]

torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
data = torch.utils.data.TensorDataset(torch.arange(400.0).reshape(100, 4).sin())
loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(3))
batches = iter(loader)
session = Session.open()
session.track(model=model, optimizer=optimizer)
for step in session.steps(1000):
    (x,) = next(batches)
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
