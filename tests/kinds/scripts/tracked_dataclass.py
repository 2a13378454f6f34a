"""A tracked dataclass, with an enum, a tuple and a 0-dim tensor in it

Variables of the loop: exact
"""

import enum
from dataclasses import dataclass, field

import torch
from spot_training import Session
from torch import nn


class Phase(enum.Enum):
    WARM = 1
    LONG = 2


@dataclass
class State:
    phase: Phase = Phase.WARM
    best: tuple[float, int] = (float("inf"), -1)
    mean: torch.Tensor = field(default_factory=lambda: torch.zeros(()))
    seen: set[int] = field(default_factory=set)


torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
state = State()
session.track(model=model, optimizer=optimizer, state=state)
for step in session.steps(8):
    loss = model(torch.randn(2, 4)).square().mean() * (1.0 if state.phase is Phase.WARM else 2.0)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    state.phase = Phase.LONG if step > 3 else state.phase
    state.best = min(state.best, (loss.item(), step))
    state.mean.lerp_(loss.detach(), 0.1)
    state.seen.add(step % 3)
    session.log(loss=loss.item(), best=list(state.best), mean=state.mean.item(), seen=sorted(state.seen))
