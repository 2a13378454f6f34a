"""Lightning's `Trainer`: epochs, shuffled, accumulation, workers, validation twice in each, early stopping, epoch means

Frameworks: exact
"""

import logging
import warnings

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping
from spot_training.lightning import SpotCallback

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Rows(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.randn(4) + index / 10


class Net(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(), torch.nn.Linear(8, 1))
        self.seen = 0

    def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
        loss = (self.layers(batch) - batch.sum(1, keepdim=True)).square().mean()
        self.seen += len(batch)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: torch.Tensor, _: int) -> None:
        self.log("val_loss", (self.layers(batch) - batch.sum(1, keepdim=True)).square().mean())

    def configure_optimizers(self) -> dict[str, object]:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.1)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"}}


torch.manual_seed(0)
trainer = lightning.Trainer(
    max_epochs=3, accumulate_grad_batches=2, val_check_interval=0.5, accelerator="cpu", logger=False,
    log_every_n_steps=1, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    gradient_clip_val=0.5,
    callbacks=[EarlyStopping("val_loss", patience=3), SpotCallback()],
)  # fmt: skip
train = torch.utils.data.DataLoader(Rows(), batch_size=4, shuffle=True, num_workers=2)
trainer.fit(Net(), train, torch.utils.data.DataLoader(Rows(), batch_size=10))
