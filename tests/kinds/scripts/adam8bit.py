"""torchao's 8-bit AdamW

Optimizers: exact
"""

import torch
from spot_training import Session
from torch import nn
from torchao.optim import AdamW8bit

torch.compiler.set_stance("force_eager")  # it compiles its step
torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
optimizer = AdamW8bit(model.parameters(), lr=0.01)
session.track(model=model, optimizer=optimizer)
for _ in session.steps(6):
    loss = model(torch.randn(2, 64)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    session.log(loss=loss.item())
