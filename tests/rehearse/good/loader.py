"""Good: a shuffled data set through the loader that resumes, with its own epochs."""

import torch
from spot_training import Session
from spot_training.data import ResumableLoader
from torch import nn

torch.manual_seed(1)
data = torch.utils.data.TensorDataset(torch.arange(120.0).reshape(30, 4).sin())
loader = ResumableLoader(data, batch_size=8, shuffle=True, seed=3)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
session = Session.open()
session.track(model=model, optimizer=optimizer, loader=loader)
batches = loader.forever()
for step in session.steps(1000):
    (x,) = next(batches)
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
