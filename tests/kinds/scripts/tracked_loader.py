"""A plain DataLoader that is tracked

Data: loader is a DataLoader, which does not know where it is: after a resume it would begin anew.
"""

import torch
from spot_training import Session
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
dataset = TensorDataset(torch.arange(40.0).reshape(10, 4) / 40)
loader = DataLoader(dataset, batch_size=1, shuffle=True)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
session.track(model=model, optimizer=optimizer, loader=loader)
for _, (x,) in zip(session.steps(8), loader, strict=False):
    loss = model(x).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    session.log(loss=loss.item())
