"""Lightning's `Trainer` over a stream (`IterableDataset`)

Frameworks: a stream, which Lightning reads ahead of its steps, can't be resumed: give it a length
"""

from collections.abc import Iterator

import lightning
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from spot_training.lightning import SpotCallback


class Rows(torch.utils.data.IterableDataset):
    def __iter__(self) -> Iterator[torch.Tensor]:
        while True:
            yield torch.randn(32)


trainer = lightning.Trainer(max_steps=4, accelerator="cpu", logger=False, callbacks=[SpotCallback()])
trainer.fit(BoringModel(), torch.utils.data.DataLoader(Rows(), batch_size=2))
