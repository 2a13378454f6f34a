"""`Trainer` with evaluation in steps, ReduceLROnPlateau, early stopping, and a callback that keeps a count

Frameworks: exact
"""

import torch
from spot_training import huggingface
from transformers import (
    EarlyStoppingCallback,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


class Rows(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = torch.arange(8) + index
        return {"input_ids": ids, "labels": ids}


class Counter(TrainerCallback):
    def __init__(self) -> None:
        self.seen = 0.0

    def on_evaluate(self, args, state, control, metrics, **given) -> None:  # type: ignore[no-untyped-def]
        self.seen += metrics["eval_loss"]
        state.log_history[-1] = {"seen": self.seen}
        session.log(seen=self.seen, random=torch.rand(1).item())


torch.manual_seed(0)
config = GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=64, n_positions=8, bos_token_id=0, eos_token_id=0)
arguments = TrainingArguments(
    "out", num_train_epochs=5, per_device_train_batch_size=4, learning_rate=1.0, eval_strategy="steps", eval_steps=1,
    lr_scheduler_type="reduce_lr_on_plateau", lr_scheduler_kwargs={"patience": 1}, metric_for_best_model="loss",
    eval_on_start=True, logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
)  # fmt: skip
stop = EarlyStoppingCallback(early_stopping_patience=3)
trainer = Trainer(
    GPT2LMHeadModel(config), arguments, train_dataset=Rows(), eval_dataset=Rows(), callbacks=[stop, Counter()]
)
session = huggingface.session(trainer)
trainer.train()
