"""A GAN: two models, two optimizers, two updates in each step

Loops: exact
"""

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(0)
session = Session.open()
g = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
d = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(), nn.Dropout(0.1), nn.Linear(8, 1))
opt_g, opt_d = (torch.optim.Adam(net.parameters(), lr=0.01, betas=(0.5, 0.9)) for net in (g, d))
criterion = nn.BCEWithLogitsLoss()
session.track(g=g, d=d, opt_g=opt_g, opt_d=opt_d)
for _ in session.steps(8):
    fake = g(torch.randn(4, 3))
    loss_d = criterion(d(torch.randn(4, 4)), torch.ones(4, 1)) + criterion(d(fake.detach()), torch.zeros(4, 1))
    opt_d.zero_grad()
    loss_d.backward()
    opt_d.step()
    loss_g = criterion(d(fake), torch.ones(4, 1))
    opt_g.zero_grad()
    loss_g.backward()
    opt_g.step()
    session.log(d=loss_d.item(), g=loss_g.item())
