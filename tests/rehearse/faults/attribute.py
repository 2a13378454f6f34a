"""Fault: a trainer object keeps the best loss as an attribute."""

import torch
from spot_training import Session
from torch import nn

NAMES = ["self.best"]


class Trainer:
    def __init__(self):
        torch.manual_seed(1)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.best = 9e9
        self.session = Session.open()
        self.session.track(model=self.model, optimizer=self.optimizer)

    def train(self):
        for step in self.session.steps(1000):
            loss = self.model(torch.randn(16, 4)).square().mean()
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.best = min(self.best, loss.item())
            self.session.log(loss=loss.item())


Trainer().train()
