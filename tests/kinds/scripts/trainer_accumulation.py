"""`Trainer` with accumulation that does not divide the epoch, two workers, clipping, Adafactor, and `max_steps`

Frameworks: exact
"""

import torch
from spot_training import huggingface
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments


class Rows(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = torch.randint(0, 32, (8,)) + index
        return {"input_ids": ids, "labels": ids}


torch.manual_seed(0)
config = GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=64, n_positions=8, bos_token_id=0, eos_token_id=0)
arguments = TrainingArguments(
    "out", max_steps=7, per_device_train_batch_size=2, gradient_accumulation_steps=2, dataloader_num_workers=2,
    learning_rate=0.1, optim="adafactor", max_grad_norm=0.5, logging_steps=2, save_strategy="no", report_to="none",
    disable_tqdm=True, use_cpu=True,
)  # fmt: skip
trainer = Trainer(GPT2LMHeadModel(config), arguments, train_dataset=Rows())
session = huggingface.session(trainer)
trainer.train()
session.finish(trainer.save_model)
