"""Lightning's `Trainer` with a GAN: manual optimization, two optimizers, `max_steps`

Frameworks: exact
"""

import logging
import warnings

import lightning
import torch
from spot_training.lightning import SpotCallback

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Gan(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.critic = torch.nn.Linear(2, 4), torch.nn.Linear(4, 1)

    def training_step(self, batch: list[torch.Tensor], _: int) -> None:
        (real,) = batch
        ours, theirs = self.optimizers()
        fake = self.generator(torch.randn(len(real), 2))
        judged = self.critic(fake.detach()).mean() - self.critic(real).mean()
        theirs.zero_grad()
        self.manual_backward(judged)
        theirs.step()
        fooled = -self.critic(self.generator(torch.randn(len(real), 2))).mean()
        ours.zero_grad()
        self.manual_backward(fooled)
        ours.step()
        self.log_dict({"judged": judged, "fooled": fooled})

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.Adam(self.generator.parameters()), torch.optim.Adam(self.critic.parameters())]


torch.manual_seed(0)
trainer = lightning.Trainer(
    max_steps=14, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
    enable_model_summary=False, callbacks=[SpotCallback()],
)  # fmt: skip
rows = torch.utils.data.TensorDataset(torch.randn(10, 4))
trainer.fit(Gan(), torch.utils.data.DataLoader(rows, batch_size=2, shuffle=True))
