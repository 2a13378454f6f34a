"""A GPT on characters, as nanoGPT trains it: accumulation, clipping, a rate by hand, evaluation at the top."""

import math

import torch
from spot_training import Session
from torch import nn

MAX_STEPS, WARMUP, BATCH, CONTEXT, ACCUMULATE = 40, 5, 16, 64, 2
TEXT = __doc__ * 40

torch.manual_seed(0)
letters = sorted(set(TEXT))
data = torch.tensor([letters.index(letter) for letter in TEXT])


class Gpt(nn.Module):
    def __init__(self, width: int = 64, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.letter = nn.Embedding(len(letters), width)
        self.place = nn.Embedding(CONTEXT, width)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.1, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, len(letters), bias=False)
        self.head.weight = self.letter.weight

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        h = self.blocks(self.letter(x) + self.place(torch.arange(x.shape[1])), mask=mask, is_causal=True)
        return nn.functional.cross_entropy(self.head(h).flatten(0, 1), y.flatten())


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    starts = torch.randint(len(data) - CONTEXT - 1, (BATCH,))
    rows = torch.stack([data[start : start + CONTEXT + 1] for start in starts])
    return rows[:, :-1], rows[:, 1:]


def rate(step: int) -> float:
    if step < WARMUP:
        return 1e-3 * (step + 1) / WARMUP
    return 1e-4 + 0.45e-3 * (1 + math.cos(math.pi * (step - WARMUP) / (MAX_STEPS - WARMUP)))


model = Gpt()
optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
best = {"loss": 1e9}

session = Session.open()
session.track(model=model, optimizer=optimizer, best=best)
for step in session.steps(MAX_STEPS):
    for group in optimizer.param_groups:
        group["lr"] = rate(step)
    if step % 10 == 0:
        with session.phase("evaluating"), torch.no_grad():
            model.eval()
            best["loss"] = min(best["loss"], sum(model(*batch()).item() for _ in range(4)) / 4)
            model.train()
        session.log(best=best["loss"])
    optimizer.zero_grad()
    for _ in range(ACCUMULATE):
        loss = model(*batch()) / ACCUMULATE
        loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    session.log(loss=loss.item() * ACCUMULATE)
session.finish(lambda folder: torch.save(model.state_dict(), folder / "model.pt"))
