"""Hugging Face's `Trainer` as it is: it saves at SIGTERM by itself, and goes on from its newest checkpoint."""

import torch
from transformers import AutoModelForCausalLM, GPT2Config, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

CONTEXT = 64
TEXT = (__doc__ + " Nothing of the session is in here. ") * 60

set_seed(0)
letters = sorted(set(TEXT))
ids = torch.tensor([letters.index(letter) for letter in TEXT])
rows = [{"input_ids": row, "labels": row} for row in ids[: len(ids) // CONTEXT * CONTEXT].view(-1, CONTEXT)]

config = GPT2Config(
    vocab_size=len(letters), n_positions=CONTEXT, n_embd=128, n_layer=3, n_head=4, bos_token_id=0, eos_token_id=0
)
trainer = Trainer(
    AutoModelForCausalLM.from_config(config),
    TrainingArguments(
        "saves",
        max_steps=30,
        per_device_train_batch_size=8,
        learning_rate=1e-3,
        save_steps=15,
        save_total_limit=2,
        enable_jit_checkpoint=True,  # saves when SIGTERM comes, which run.yaml asks for
        report_to="none",
    ),
    train_dataset=rows,
)
trainer.train(resume_from_checkpoint=get_last_checkpoint("saves"))
