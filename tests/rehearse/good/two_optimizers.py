"""Good: two models and two optimizers, as in a GAN."""

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
critic = nn.Linear(4, 1)
other = torch.optim.Adam(critic.parameters(), lr=1e-2)
session = Session.open()
session.track(model=model, optimizer=optimizer, critic=critic, other=other)
for step in session.steps(1000):
    loss = model(torch.randn(16, 4)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    session.log(loss=loss.item())
    critic(torch.randn(8, 4)).square().mean().backward()
    other.step()
    other.zero_grad()
