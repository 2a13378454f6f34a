"""A classifier with Lightning's `Trainer`: a callback makes it a session."""

import lightning
import torch
from spot_training.lightning import SpotCallback
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Classifier(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 32, 3),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(9216, 2),
        )

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        loss = nn.functional.cross_entropy(self.layers(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.layers(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


lightning.seed_everything(0)
pictures = torch.randn(1280, 3, 16, 16)
rows = TensorDataset(pictures, (pictures.mean((1, 2, 3)) > 0).long())
train, test = torch.utils.data.random_split(rows, [1024, 256])
model = Classifier()
spot = SpotCallback()
trainer = lightning.Trainer(
    max_epochs=3, callbacks=[spot], logger=False, enable_checkpointing=False, enable_progress_bar=False
)
trainer.fit(model, DataLoader(train, batch_size=64, shuffle=True), DataLoader(test, batch_size=64))
spot.session.finish(lambda folder: torch.save(model.state_dict(), folder / "model.pt"))
