"""TRL's `DPOTrainer`: a reference model that follows the trained one, rewards averaged over several steps

Frameworks: exact
"""

import torch
from datasets import Dataset
from spot_training import huggingface
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

WORDS = ["the", "run", "is", "saved", "in", "mid", "step", "and", "goes", "on", "at", "same", "one", "twice"]
vocabulary = {word: place for place, word in enumerate(["<pad>", "<eos>", "<unk>", *WORDS])}
plain = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
plain.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
rows = Dataset.from_list(
    [
        {"prompt": " ".join(WORDS[place % 7 :: 3]), "chosen": WORDS[place % 5], "rejected": WORDS[-1 - place % 4]}
        for place in range(14)
    ]
)

torch.manual_seed(0)
config = GPT2Config(
    n_layer=1, n_head=1, n_embd=8, vocab_size=len(vocabulary), n_positions=16, bos_token_id=1, eos_token_id=1
)
arguments = DPOConfig(
    "out", num_train_epochs=2, per_device_train_batch_size=2, max_length=16, learning_rate=0.1, logging_steps=4,
    sync_ref_model=True, ref_model_sync_steps=2,
    save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True, bf16=False,
)  # fmt: skip
model, reference = GPT2LMHeadModel(config), GPT2LMHeadModel(config)
trainer = DPOTrainer(model, reference, arguments, train_dataset=rows, processing_class=tokenizer)
session = huggingface.session(trainer)
trainer.train()
session.finish(trainer.save_model)
