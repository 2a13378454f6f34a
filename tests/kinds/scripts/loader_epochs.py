"""Epochs over a shuffled loader

Data: exact
"""

import torch
from spot_training import ResumableLoader, Session
from torch import nn
from torch.utils.data import TensorDataset

torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
dataset = TensorDataset(torch.arange(40.0).reshape(10, 4) / 40)
loader = ResumableLoader(dataset, batch_size=3, shuffle=True, seed=1)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
session.track(model=model, optimizer=optimizer, loader=loader)
steps = session.steps(8)
for epoch in loader.epochs(3):
    for (x,), _ in zip(loader, steps, strict=False):
        loss = model(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        session.log(loss=loss.item())
        session.log(epoch=epoch)
