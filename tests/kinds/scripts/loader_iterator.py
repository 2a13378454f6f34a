"""An iterator over a plain DataLoader, begun again at its end

Data: `batches` (loader_iterator.py:LINE) is an iterator over a plain DataLoader and is not tracked
"""

import torch
from spot_training import Session
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
dataset = TensorDataset(torch.arange(40.0).reshape(10, 4) / 40)
loader = DataLoader(dataset, batch_size=3)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
batches = iter(loader)
session.track(model=model, optimizer=optimizer)
for _ in session.steps(8):
    try:
        (x,) = next(batches)
    except StopIteration:
        batches = iter(loader)
        (x,) = next(batches)
    loss = model(x).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    session.log(loss=loss.item())
