"""How often a model's answers are right, by kind of question, beside what can be had without looking."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from workloads.pictures.batch import IGNORED, Batch, Sample

ALL, NEW = "all", "new combinations"
"""Rows of the table beside the kinds: everything, and what was never shown together in training."""


@dataclass(frozen=True)
class Answer:
    """What a model said to one question."""

    sample: Sample
    turn: int
    """Which of the sample's questions, from 0."""
    said: tuple[int, ...]
    """Tokens: of each place of the answer the likeliest, given the right ones before it."""
    right: bool
    """Whether that is the answer, to its end: then it is also what the model says by itself, word after word."""

    @property
    def question(self) -> str:
        return self.sample.turns[self.turn][0]

    @property
    def truth(self) -> str:
        return self.sample.turns[self.turn][1]


@dataclass(frozen=True)
class Row:
    """Shares of right answers to the questions of one kind, 0 to 1."""

    kind: str
    questions: int
    chance: float
    """One of the answers that this kind has, drawn."""
    majority: float
    """What training answered most often to this very question: the most that can be learnt without looking."""
    text_only: float
    """The same model without a picture."""
    accuracy: float


def answers(batch: Batch, logits: Tensor) -> list[Answer]:
    """What was said to each question; the batch has one sample in each row, `logits` is [rows, L, vocabulary]."""
    said = logits[:, :-1].argmax(dim=-1).cpu()
    labels = batch.labels[:, 1:].cpu()
    found = []
    for row, (sample,) in enumerate(batch.samples):
        places = (labels[row] != IGNORED).nonzero().flatten()
        # An answer's tokens stand together, and the next question is between them and the next answer's.
        spans = places.tensor_split((places.diff() > 1).nonzero().flatten() + 1)
        for turn, span in enumerate(spans[: len(sample.turns)]):
            words = said[row][span]
            found.append(Answer(sample, turn, tuple(words.tolist()), torch.equal(words, labels[row][span])))
    return found


def table(seen: Sequence[Answer], unseen: Sequence[Answer], trained: Iterable[Sample]) -> list[Row]:
    """A row for each kind of question and one for all. `unseen`: the same questions, without pictures; `trained`: what
    the model was trained on."""
    usual = majority(trained)
    known: dict[str, set[str]] = defaultdict(set)
    for answer in seen:
        known[_kind(answer.sample)].add(answer.truth)

    def row(name: str, chosen: Sequence[int]) -> Row:
        said = [seen[number] for number in chosen]
        return Row(
            kind=name,
            questions=len(chosen),
            chance=_mean(1 / len(known[_kind(one.sample)]) for one in said),
            majority=_mean(usual.get(one.question) == one.truth for one in said),
            text_only=_mean(unseen[number].right for number in chosen),
            accuracy=_mean(one.right for one in said),
        )

    numbers = range(len(seen))
    rows = [row(kind, [number for number in numbers if _kind(seen[number].sample) == kind]) for kind in sorted(known)]
    rows.append(row(ALL, numbers))
    if new := [number for number in numbers if seen[number].sample.facts.get("new")]:
        rows.append(row(NEW, new))
    return rows


def majority(trained: Iterable[Sample]) -> dict[str, str]:
    """Of each question, the most frequent answer; of several the first in the alphabet."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in trained:
        for question, answer in sample.turns:
            counts[question][answer] += 1
    return {
        question: min(counter, key=lambda answer: (-counter[answer], answer)) for question, counter in counts.items()
    }


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For eval.json."""
    return [
        {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(row).items()}
        for row in rows
    ]


def as_text(rows: Sequence[Row]) -> str:
    """For the trainer's log and the docs: a table in Markdown."""
    head = ["question", "asked", "chance", "majority", "text only", "with the picture"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in rows:
        shares = (row.chance, row.majority, row.text_only, row.accuracy)
        lines.append([row.kind, str(row.questions), *(f"{share:.1%}" for share in shares)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _kind(sample: Sample) -> str:
    return str(sample.facts.get("kind", "question"))


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0
