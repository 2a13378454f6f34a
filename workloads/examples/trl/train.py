"""Instruction tuning with TRL's `SFTTrainer`: two lines make it a session."""

from datasets import Dataset
from spot_training import huggingface
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, set_seed
from trl import SFTConfig, SFTTrainer

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]

set_seed(0)
rows = [
    {"prompt": f"{NUMBERS[a]} plus {NUMBERS[b]} is", "completion": f" {NUMBERS[(a + b) % 10]}"}
    for a in range(10)
    for b in range(10)
]
words = Tokenizer(models.WordLevel({word: at for at, word in enumerate(["<pad>", "<eos>", "plus", "is", *NUMBERS])}))
words.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")  # noqa: S106

config = GPT2Config(
    vocab_size=len(tokenizer), n_positions=16, n_embd=128, n_layer=3, n_head=4, bos_token_id=1, eos_token_id=1
)
trainer = SFTTrainer(
    GPT2LMHeadModel(config),
    SFTConfig(
        "trainer",
        max_steps=30,
        per_device_train_batch_size=32,
        gradient_accumulation_steps=2,
        learning_rate=1e-3,
        eval_strategy="steps",
        eval_steps=10,
        logging_steps=2,
        bf16=False,
        save_strategy="no",  # the session saves, to the bucket
        report_to="none",
    ),
    train_dataset=Dataset.from_list(rows),
    eval_dataset=Dataset.from_list(rows[::9]),
    processing_class=tokenizer,
)
session = huggingface.session(trainer)
trainer.train()
session.finish(trainer.save_model)
