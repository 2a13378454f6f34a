"""A `Trainer` over a stream that ends before `max_steps`

Frameworks: the stream ended in epoch 1 before max_steps: a Trainer's place in a later lap of a stream can't be told
"""

from collections.abc import Iterator

import torch
from spot_training import huggingface
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments


class Rows(torch.utils.data.IterableDataset):
    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for number in range(8):
            ids = torch.arange(8) + number
            yield {"input_ids": ids, "labels": ids}


torch.manual_seed(0)
config = GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=64, n_positions=8, bos_token_id=0, eos_token_id=0)
arguments = TrainingArguments(
    "out", max_steps=6, per_device_train_batch_size=2, save_strategy="no", report_to="none", use_cpu=True
)
trainer = Trainer(GPT2LMHeadModel(config), arguments, train_dataset=Rows())
huggingface.session(trainer)
trainer.train()
