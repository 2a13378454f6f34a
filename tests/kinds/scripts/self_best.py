"""`self.best` of a trainer class

Variables of the loop: `self.best` (self_best.py:LINE) carries over from one step to the next and is not tracked
"""

import torch
from spot_training import Session
from torch import nn


class Trainer:
    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(4, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.best = float("inf")

    def step(self) -> float:
        loss = self.model(torch.randn(2, 4)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def fit(self, session: Session) -> None:
        session.track(model=self.model, optimizer=self.optimizer)
        for _ in session.steps(8):
            self.best = min(self.best, self.step())


Trainer().fit(Session.open())
