# is Hugging Face's own `Trainer` with `enable_jit_checkpoint`, three seconds after the signal
# Group: Whose save it is
# Promise: its save, whole, with `notice_signal: SIGTERM`; its steps
# Expect: checkpoint-2/trainer_state.json !checkpoint-2/checkpoint-is-incomplete.txt step=2
# How: signal=SIGTERM window=15 needs=accelerate

import sys
import time

sys.path.pop(0)  # other rows there have the names of packages

import torch
from told import SAVES, ready
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments


class UntilTold(TrainerCallback):
    def on_step_end(self, args, state, control, **given):
        if state.global_step == 2:
            ready()
            while not jit.is_checkpoint_requested:
                time.sleep(0.05)


rows = [{"input_ids": torch.arange(8), "labels": torch.arange(8)}] * 8
config = GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=64, n_positions=8, bos_token_id=0, eos_token_id=0)
arguments = TrainingArguments(str(SAVES), enable_jit_checkpoint=True, report_to="none", disable_tqdm=True, use_cpu=True)
trainer = Trainer(GPT2LMHeadModel(config), arguments, train_dataset=rows)
callbacks = trainer.callback_handler.callbacks
jit = next(one.jit_manager for one in callbacks if hasattr(one, "jit_manager"))
callbacks.insert(0, UntilTold())
trainer.train()
