"""A `Trainer` that loads the best of its own checkpoints at the end

Frameworks: this Trainer can't be resumed exactly with load_best_model_at_end: the
checkpoint folders that it reads do not travel; evaluate behind train()
"""

import torch
from spot_training import huggingface
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

torch.manual_seed(0)
config = GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=64, n_positions=8, bos_token_id=0, eos_token_id=0)
arguments = TrainingArguments(
    "out",
    eval_strategy="steps",
    eval_steps=2,
    save_steps=2,
    load_best_model_at_end=True,
    report_to="none",
    use_cpu=True,
)
rows = [{"input_ids": torch.arange(8), "labels": torch.arange(8)}] * 8
trainer = Trainer(GPT2LMHeadModel(config), arguments, train_dataset=rows, eval_dataset=rows)
huggingface.session(trainer)
trainer.train()
