"""Evaluation behind the update over a plain, shuffled DataLoader

Data: exact
"""

import torch
from spot_training import Session
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
dataset = TensorDataset(torch.arange(40.0).reshape(10, 4) / 40)
validation = DataLoader(dataset, batch_size=5, shuffle=True)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
session.track(model=model, optimizer=optimizer)
for step in session.steps(8):
    x = torch.randn(2, 4)
    loss = model(x).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    session.log(loss=loss.item())
    if step % 2:
        model.eval()
        with torch.no_grad():
            session.log(val=sum(model(x).sum().item() * at for at, (x,) in enumerate(validation)))
        model.train()
