"""A loop of one's own, a classifier on made-up pictures: the lines with `session` make it one."""

import torch
from spot_training import ResumableLoader, Session
from torch import nn
from torch.utils.data import TensorDataset

torch.manual_seed(0)
pictures = torch.randn(2048, 3, 16, 16)
labels = (pictures.mean((1, 2, 3)) > 0).long()
loader = ResumableLoader(TensorDataset(pictures, labels), batch_size=64, shuffle=True, seed=0)
model = nn.Sequential(
    nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(9216, 2)
)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)

session = Session.open()
session.track(model=model, optimizer=optimizer, scheduler=scheduler, loader=loader)
for _, (x, y) in zip(session.steps(40), loader.forever(), strict=False):
    loss = nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    session.log(loss=loss.item())
session.finish(lambda folder: torch.save(model.state_dict(), folder / "model.pt"))
