"""TRL's `GRPOTrainer`: completions that are generated once for several updates, a reward of one's own

Frameworks: exact
"""

import torch
from datasets import Dataset
from spot_training import huggingface
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

WORDS = ["the", "run", "is", "saved", "in", "mid", "step", "and", "goes", "on", "at", "same", "one", "twice"]
vocabulary = {word: place for place, word in enumerate(["<pad>", "<eos>", "<unk>", *WORDS])}
plain = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
plain.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
rows = Dataset.from_list([{"prompt": " ".join(WORDS[place % 7 :: 3])} for place in range(14)])


def no_word_twice(completions, **given) -> list[float]:  # type: ignore[no-untyped-def]
    return [len(set(said.split())) / (1 + len(said.split())) for said in completions]


torch.manual_seed(0)
config = GPT2Config(
    n_layer=1, n_head=1, n_embd=8, vocab_size=len(vocabulary), n_positions=32, bos_token_id=1, eos_token_id=1
)
arguments = GRPOConfig(
    "out", max_steps=9, per_device_train_batch_size=2, gradient_accumulation_steps=2, num_generations=2,
    num_iterations=2, max_completion_length=6, learning_rate=0.1, logging_steps=3, save_strategy="no",
    report_to="none", disable_tqdm=True, use_cpu=True, bf16=False,
)  # fmt: skip
trainer = GRPOTrainer(
    GPT2LMHeadModel(config), no_word_twice, arguments, train_dataset=rows, processing_class=tokenizer,
)  # fmt: skip
session = huggingface.session(trainer)
trainer.train()
session.finish(trainer.save_model)
