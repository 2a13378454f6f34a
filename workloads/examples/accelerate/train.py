"""A loop with Accelerate: `prepare()` and `accumulate()` as ever, and a session around the loop."""

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from spot_training import accelerate
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

set_seed(0)
accelerator = Accelerator(gradient_accumulation_steps=2)
pictures = torch.randn(1024, 3, 16, 16)
rows = TensorDataset(pictures, (pictures.mean((1, 2, 3)) > 0).long())
model = nn.Sequential(
    nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(9216, 2)
)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=48)
model, optimizer, scheduler, loader = accelerator.prepare(
    model, optimizer, scheduler, DataLoader(rows, batch_size=32, shuffle=True)
)

session = accelerate.session(accelerator)
for _ in session.epochs(3):
    for x, y in session.batches(loader):
        with accelerator.accumulate(model):
            loss = nn.functional.cross_entropy(model(x), y)
            accelerator.backward(loss)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        session.log(loss=loss.item())
session.finish(lambda folder: torch.save(accelerator.unwrap_model(model).state_dict(), folder / "model.pt"))
