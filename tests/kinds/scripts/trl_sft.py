"""TRL's `SFTTrainer`: packed rows, completions alone, evaluation, its own metrics, averaged over several steps

Frameworks: exact
"""

import torch
from datasets import Dataset
from spot_training import huggingface
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

WORDS = ["the", "run", "is", "saved", "in", "mid", "step", "and", "goes", "on", "at", "same", "one", "twice"]
vocabulary = {word: place for place, word in enumerate(["<pad>", "<eos>", "<unk>", *WORDS])}
plain = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
plain.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
pairs = [(WORDS[place % 7 :: 2], WORDS[place % 5 :: 1 + place % 3]) for place in range(48)]
rows = Dataset.from_list([{"prompt": " ".join(asked), "completion": " ".join(said)} for asked, said in pairs])


torch.manual_seed(0)
config = GPT2Config(
    n_layer=1, n_head=1, n_embd=8, vocab_size=len(vocabulary), n_positions=16, bos_token_id=1, eos_token_id=1
)
arguments = SFTConfig(
    "out", max_steps=9, per_device_train_batch_size=2, gradient_accumulation_steps=2, max_length=16, packing=True,
    packing_strategy="wrapped", learning_rate=0.1, logging_steps=4, eval_strategy="steps", eval_steps=3,
    save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True, bf16=False,
)  # fmt: skip
trainer = SFTTrainer(
    GPT2LMHeadModel(config), arguments, train_dataset=rows, eval_dataset=rows.select(range(4)),
    processing_class=tokenizer,
)  # fmt: skip
session = huggingface.session(trainer)
trainer.train()
session.finish(trainer.save_model)
