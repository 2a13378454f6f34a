"""`Trainer` over a stream (`IterableDataset`)

Frameworks: exact
"""

from collections.abc import Iterator

import torch
from spot_training import huggingface
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments


class Rows(torch.utils.data.IterableDataset):
    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        number = 0
        while True:
            ids = torch.randint(0, 32, (8,)) + number % 8
            yield {"input_ids": ids, "labels": ids}
            number += 1


torch.manual_seed(0)
config = GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=64, n_positions=8, bos_token_id=0, eos_token_id=0)
arguments = TrainingArguments(
    "out", max_steps=6, per_device_train_batch_size=2, gradient_accumulation_steps=2, learning_rate=0.1,
    logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
)  # fmt: skip
trainer = Trainer(GPT2LMHeadModel(config), arguments, train_dataset=Rows())
huggingface.session(trainer)
trainer.train()
