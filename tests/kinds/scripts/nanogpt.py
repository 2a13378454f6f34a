"""nanoGPT's loop: accumulation, clipping, a rate by hand, evaluation at the top

Loops: exact
"""

import time

import torch
from spot_training import Session
from torch import nn


def get_batch() -> tuple[torch.Tensor, torch.Tensor]:
    ix = torch.randint(len(data) - 8, (2,))
    x, y = (torch.stack([data[i + at : i + at + 8] for i in ix]) for at in (0, 1))
    return x, y


def get_lr(it: int) -> float:
    return 0.01 * min(1.0, (it + 1) / 4)


@torch.no_grad()
def estimate_loss() -> float:
    model.eval()
    losses = torch.zeros(3)
    for k in range(3):
        x, y = get_batch()
        losses[k] = nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
    model.train()
    return losses.mean().item()


torch.manual_seed(1337)
session = Session.open()
data = torch.randint(16, (256,))
model = nn.Sequential(nn.Embedding(16, 8), nn.Dropout(0.1), nn.Linear(8, 16))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, betas=(0.9, 0.95))
best = {"val_loss": 1e9}
session.track(model=model, optimizer=optimizer, best=best)
t0 = time.time()
for iter_num in session.steps(8):
    lr = get_lr(iter_num)
    for param_group in optimizer.param_groups:
        param_group["lr"] = lr
    if iter_num % 2 == 0:
        val = estimate_loss()
        best["val_loss"] = min(best["val_loss"], val)
        session.log(val=val, best=best["val_loss"])
    for _ in range(2):
        x, y = get_batch()
        loss = nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten()) / 2
        loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    t1 = time.time()
    dt = t1 - t0
    t0 = t1
    session.log(loss=loss.item() * 2, lr=lr)
