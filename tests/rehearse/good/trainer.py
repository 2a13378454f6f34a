"""Good: a class that holds all of it."""

import torch
from spot_training import Session
from torch import nn


class Trainer:
    def __init__(self):
        torch.manual_seed(1)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.progress = {"rows": 0}
        self.session = Session.open()
        self.session.track(model=self.model, optimizer=self.optimizer, progress=self.progress)

    def batch(self):
        self.progress["rows"] += 16
        return torch.randn(16, 4)

    def train(self):
        for _ in self.session.steps(1000):
            loss = self.model(self.batch()).square().mean()
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.session.log(loss=loss.item())


Trainer().train()
