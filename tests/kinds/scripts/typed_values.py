"""Integer keys, keys with dots, tuples in lists, bytes, NaN, NumPy scalars in a tracked dict

Variables of the loop: exact
"""

import numpy as np
import torch
from spot_training import Session
from torch import nn

torch.manual_seed(0)
session = Session.open()
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
odd = {1: [(1, 2)], "a.b": b"x", None: float("nan"), (1, "k"): np.float32(0.1), "t": torch.ones(1), "i": 10**30}
session.track(model=model, optimizer=optimizer, odd=odd)
for step in session.steps(8):
    loss = model(torch.randn(2, 4)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    odd[1].append((step, step))
    odd["a.b"] += b"y"
    odd[1, "k"] = odd[1, "k"] + np.float32(0.1)
    odd["t"] = odd["t"] * 1.1
    session.log(odd=repr(odd))
