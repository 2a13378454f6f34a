"""From the run file to samples and a tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from agent.config import Data, RunConfig
from workloads.arr_coc.questions import Questions, questions_of
from workloads.errors import DataError
from workloads.kept import Kept
from workloads.models.tokenizer import digest, encode, tokenizer_for
from workloads.pictures.batch import Batch, Shape
from workloads.pictures.batches import Batches, eval_batches
from workloads.pictures.opened import Opened, find
from workloads.scenes.make import with_scenes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Read:
    """What a run trains on."""

    data: Data
    opened: Opened
    shape: Shape
    tokenizer: PreTrainedTokenizerBase

    def batches(self, run: RunConfig, *, seed: int) -> Batches:
        """To train on, without end."""
        training = run.training
        return Batches(
            self.opened.train, self.shape, self.data.pictures, seed=seed,
            global_batch=training.global_batch, micro_batch=training.micro_batch,
        )  # fmt: skip

    def held(self, *, micro_batch: int, device: torch.device, count: int | None = None) -> Iterator[Questions]:
        """To evaluate on: up to `count` batches of each source, the same ones every time."""
        for source in self.opened.held:
            for batch in eval_batches(source, self.shape, self.data.pictures, micro_batch=micro_batch, count=count):
                yield self.questions(batch).to(device)

    def questions(self, batch: Batch) -> Questions:
        """A batch as the model takes it."""
        return questions_of(batch, self.shape.image_token)

    def text_of(self, words: Sequence[int]) -> str:
        """An answer's tokens as the answer."""
        return str(self.tokenizer.decode([word for word in words if word != self.shape.end_token])).strip()


def read(run: RunConfig, image_size: int) -> Read:
    """List, tokenise and lay out what the run file names. A picture is one place in a row, whatever it costs in tokens.

    Raises:
        DataError: it can't be had.
    """
    if run.data is None or run.model is None or run.model.language is None:
        raise DataError("kind arr-coc needs data, and model.vision, model.language and model.arr_coc in the run file")
    data = with_scenes(run.data)
    found = find(data)
    tokenizer = tokenizer_for(data, run.model.language, found.texts())
    no_word = len(tokenizer)  # stands for a picture, and is taken out again before the model reads the text
    shape = Shape(image_size, 1, data.sequence_length, no_word, tokenizer.eos_token_id)
    opened = found.open(partial(encode, tokenizer), tokenizer=digest(tokenizer), shape=shape, kept=Kept.of(run))
    if not opened.held:
        raise DataError("nothing is kept for evaluation: write data.eval_fraction, or data.pictures.eval_records")
    return Read(data, opened, shape, tokenizer)
