"""A causal language model with Hugging Face's `Trainer`, and nothing of ours: it saves when it gets SIGTERM."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GPT2Config, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

CONTEXT = 64
TEXT = (__doc__ + " It saves between two steps, three seconds after the signal at the soonest. ") * 60
SAVES = Path("saves")

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
        str(SAVES),
        enable_jit_checkpoint=True,  # with `notice_signal: SIGTERM` in the run file
        max_steps=60,
        per_device_train_batch_size=8,
        learning_rate=1e-3,
        lr_scheduler_type="cosine",
        logging_steps=5,
        save_steps=20,  # for a VM that goes without a notice
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
    ),
    train_dataset=rows,
)
last = get_last_checkpoint(SAVES) if SAVES.is_dir() else None
print(f"begins at step {last.rpartition('-')[2] if last else 0}", flush=True)
trainer.train(resume_from_checkpoint=last)
if trainer.state.global_step == trainer.args.max_steps:  # else it was told to go
    trainer.save_model(str(SAVES / "model"))
