"""A classifier with Lightning's `Trainer`, and nothing of ours: it saves when it gets SIGTERM."""

from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

SAVES = Path("saves")


class Classifier(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(9216, 2)
        )

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self.layers(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


lightning.seed_everything(0)
pictures = torch.randn(1024, 3, 16, 16)
rows = TensorDataset(pictures, (pictures.mean((1, 2, 3)) > 0).long())
saves = [*SAVES.glob("on_exception.ckpt"), *SAVES.glob("last.ckpt")]
newest = max(saves, key=lambda path: torch.load(path, weights_only=False)["global_step"], default=None)
trainer = lightning.Trainer(
    max_epochs=6,
    callbacks=[
        OnExceptionCheckpoint(SAVES),  # with `notice_signal: SIGTERM` in the run file
        ModelCheckpoint(SAVES, "last", every_n_epochs=1, enable_version_counter=False),  # for a VM without a notice
    ],
    logger=False,
    enable_progress_bar=False,
)
print(f"begins at step {torch.load(newest, weights_only=False)['global_step'] if newest else 0}", flush=True)
trainer.fit(Classifier(), DataLoader(rows, batch_size=32), ckpt_path=newest)
