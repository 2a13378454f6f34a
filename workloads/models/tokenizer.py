"""The tokenizer: an existing one, or a byte-level BPE trained on the run's own text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config import Data, Language
from workloads.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END_OF_TEXT = "<|endoftext|>"
TRAINING_BYTES = 8 * 2**20
"""A BPE sees this much of the text: more makes the start slower and the merges hardly better."""


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hugging Face name or a folder.

    Raises:
        DataError: it can't be had, or has no end-of-text token to put between documents.
    """
    from transformers import AutoTokenizer  # noqa: PLC0415 - not needed when the tokens are in the cache

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise DataError(
            f"can't load the tokenizer {name!r}: download it while there is a network, name a folder that has it, or "
            f"train one with data.tokenizer.train_vocab_size ({_first_line(error)})"
        ) from error
    if tokenizer.eos_token_id is None:
        raise DataError(f"the tokenizer {name!r} has no end-of-text token (eos_token): set one in its folder")
    return tokenizer


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """A byte-level BPE of `vocab_size` tokens, the end-of-text token included: any text can be written with it.

    The same texts give the same tokenizer, whatever the number of threads.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415 - as above
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END_OF_TEXT)


def tokenizer_for(data: Data, language: Language, texts: Iterable[str]) -> PreTrainedTokenizerBase:
    """The tokenizer that `data` names, or the named language model's own, or one trained on the first of `texts`.

    Raises:
        DataError: it can't be had.
    """
    given = data.tokenizer
    name = given.name if given is not None else language.name
    if name is not None:
        return load_tokenizer(name)
    if given is None or given.train_vocab_size is None:
        raise DataError("no tokenizer: write data.tokenizer: {train_vocab_size: 4096}, or {name: HUGGING-FACE-NAME}")
    return train_tokenizer(_first(texts, TRAINING_BYTES), given.train_vocab_size)


def _first(texts: Iterable[str], size: int) -> Iterator[str]:
    for text in texts:
        yield text
        size -= len(text.encode("utf-8", "surrogatepass"))
        if size <= 0:
            return


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Each text's tokens, without special tokens around them."""
    if not texts:
        return []
    encoded: list[list[int]] = tokenizer(
        texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )["input_ids"]
    return encoded


def digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of what decides about tokens: the whole vocabulary, and the rules where the tokenizer shows them."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    return hashlib.sha256(rules.encode()).hexdigest()


def folder_files(name: str) -> list[Path]:
    """The files of a tokenizer in a local folder; [] for a name on the hub."""
    folder = Path(name)
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if "token" in path.name or path.name in ("vocab.json", "merges.txt")
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
