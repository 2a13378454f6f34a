"""A sample's turns as tokens: question, answer and end, with a place for each picture."""

from __future__ import annotations

from collections.abc import Callable

from workloads.pictures.batch import DataError, Sample, Shape, Text

PLACE = "<image>"
"""Where a picture belongs in a question's text. Without one, the pictures come first."""

Encode = Callable[[str], list[int]]
"""A text's tokens, without special ones around them."""


def encode(sample: Sample, tokens_of: Encode, *, image_token: int, end_token: int) -> Text:
    """`question \\n answer end`, turn after turn.

    Raises:
        DataError: the text has places for another number of pictures than there are, or its tokens mean a picture.
    """
    places = sum(question.count(PLACE) for question, _ in sample.turns)
    if places not in (0, len(sample.images)):
        raise DataError(f"{sample.key} has {places} times {PLACE} in its questions, and {len(sample.images)} pictures")
    ids: list[int] = [] if places else [image_token] * len(sample.images)
    learnt = [False] * len(ids)
    for question, answer in sample.turns:
        for number, part in enumerate(question.split(PLACE)):
            asked = ([image_token] if number else []) + _checked(sample, tokens_of(part.strip()), image_token)
            ids += asked
            learnt += [False] * len(asked)
        said = [*_checked(sample, tokens_of(f"\n{answer}" if question else answer), image_token), end_token]
        ids += said
        learnt += [True] * len(said)
    return Text(tuple(ids), tuple(learnt), len(sample.images))


def fit(sample: Sample, tokens_of: Encode, shape: Shape) -> Text:
    """As `encode`; of a sample that is longer than a row the last turns are left out.

    Raises:
        DataError: its first turn alone doesn't fit.
    """
    turns = sample.turns
    while True:
        part = Sample(sample.key, sample.images, turns, sample.facts)
        text = encode(part, tokens_of, image_token=shape.image_token, end_token=shape.end_token)
        length = text.length(shape.tokens_per_image)
        if length <= shape.sequence_length:
            return text
        if len(turns) == 1:
            raise DataError(
                f"{sample.key} has {length} tokens, more than data.sequence_length, {shape.sequence_length}: write a "
                f"larger one, or leave the record out"
            )
        turns = turns[:-1]


def _checked(sample: Sample, tokens: list[int], image_token: int) -> list[int]:
    if image_token in tokens:
        raise DataError(f"the text of {sample.key} holds the token that stands for a picture ({image_token})")
    return tokens
