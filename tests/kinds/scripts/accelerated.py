"""Accelerate: epochs, `accumulate()` that does not divide them, workers, an evaluation behind each, a registered object

Frameworks: exact
"""

import torch
from accelerate import Accelerator
from spot_training import accelerate


class Rows(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(4), torch.tensor([float(index)])


class Count:
    seen = 0

    def state_dict(self) -> dict[str, int]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.seen = state["seen"]


torch.manual_seed(0)
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(), torch.nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=10)
train = torch.utils.data.DataLoader(Rows(), batch_size=2, shuffle=True, num_workers=2)
test = torch.utils.data.DataLoader(Rows(), batch_size=5)
model, optimizer, train, test, scheduler = accelerator.prepare(model, optimizer, train, test, scheduler)
count = Count()
accelerator.register_for_checkpointing(count)
best = {"loss": 1e9}
session = accelerate.session(accelerator, best=best)
for _ in session.epochs(3):
    for x, y in session.batches(train):
        with accelerator.accumulate(model):
            loss = (model(x) - y).square().mean()
            accelerator.backward(loss)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        count.seen += len(x)
        session.log(loss=loss.item(), seen=count.seen)
    model.eval()
    with torch.no_grad():
        found = sum((model(x) - y).square().mean().item() for x, y in test)
    model.train()
    best["loss"] = min(best["loss"], found)
    session.log(best=best["loss"])
