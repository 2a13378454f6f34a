"""Gradient descent by hand, inside `session.update()`

Kinds of tensors: exact
"""

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(0)
session = Session.open()
mse = nn.MSELoss()
w = torch.randn(4, 1, requires_grad=True)
session.track(w=w)
for _ in session.steps(8):
    loss = mse(torch.randn(2, 4) @ w, torch.zeros(2, 1))
    (grad,) = torch.autograd.grad(loss, [w])
    with session.update(), torch.no_grad():
        w -= 0.1 * grad
    session.log(loss=loss.item())
