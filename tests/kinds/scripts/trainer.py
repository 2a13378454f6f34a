"""Hugging Face's `Trainer`: epochs, shuffled, random rows, dropout, a cosine schedule

Frameworks: exact
"""

import random

import torch
from spot_training import huggingface
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments


class Rows(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = torch.randint(0, 32, (8,)) + index + random.randrange(4)
        return {"input_ids": ids, "labels": ids}


torch.manual_seed(0)
config = GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=64, n_positions=8, bos_token_id=0, eos_token_id=0)
arguments = TrainingArguments(
    "out", num_train_epochs=2, per_device_train_batch_size=3, learning_rate=0.1, lr_scheduler_type="cosine",
    warmup_steps=2, logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
)  # fmt: skip
trainer = Trainer(GPT2LMHeadModel(config), arguments, train_dataset=Rows())
huggingface.session(trainer)
trainer.train()
