# is Lightning's own `Trainer` with `OnExceptionCheckpoint`
# Group: Whose save it is
# Promise: its save, whole, with `notice_signal: SIGTERM`
# Expect: on_exception.ckpt=PK
# How: signal=SIGTERM window=10 needs=lightning

import sys
import time

sys.path.pop(0)  # other rows there have the names of packages

import lightning
import torch
from lightning.pytorch.callbacks import Callback, OnExceptionCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel
from told import SAVES, ready


class UntilTold(Callback):
    def on_train_batch_end(self, trainer, *given):
        ready()
        while not trainer.received_sigterm:
            time.sleep(0.05)


trainer = lightning.Trainer(
    accelerator="cpu", callbacks=[UntilTold(), OnExceptionCheckpoint(SAVES)], logger=False, enable_progress_bar=False,
    enable_model_summary=False,
)  # fmt: skip
torch.set_num_threads(1)
trainer.fit(BoringModel())
