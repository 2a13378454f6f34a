"""A causal language model with Hugging Face's `Trainer`: two lines make it a session."""

import torch
from spot_training import huggingface
from transformers import AutoModelForCausalLM, GPT2Config, Trainer, TrainingArguments, set_seed

CONTEXT = 64
TEXT = (__doc__ + " Saved in the middle of a step, resumed at the same one. ") * 60

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
        "trainer",
        max_steps=30,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        learning_rate=1e-3,
        lr_scheduler_type="cosine",
        warmup_steps=3,
        eval_strategy="steps",
        eval_steps=10,
        logging_steps=1,
        save_strategy="no",  # the session saves, to the bucket
        report_to="none",
    ),
    train_dataset=rows[:-8],
    eval_dataset=rows[-8:],
)
session = huggingface.session(trainer)
trainer.train()
session.finish(trainer.save_model)
