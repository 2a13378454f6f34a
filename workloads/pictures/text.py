"""A sample's turns as tokens: question, answer and end, with a place for each picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from workloads.pictures.batch import DataError, Sample, Shape, Text

PLACE = "<image>"
"""Where a picture belongs in a question's text. Without one, the pictures come first."""

Encode = Callable[[list[str]], list[list[int]]]
"""Each text's tokens, without special ones around them."""


def parts(sample: Sample) -> list[str]:
    """The texts to make tokens of: of each turn what is between the pictures of its question, then its answer.

    Raises:
        DataError: the text has places for another number of pictures than there are.
    """
    places = sum(question.count(PLACE) for question, _ in sample.turns)
    if places not in (0, len(sample.images)):
        raise DataError(f"{sample.key} has {places} times {PLACE} in its questions, and {len(sample.images)} pictures")
    found = []
    for question, answer in sample.turns:
        found += [part.strip() for part in question.split(PLACE)]
        found.append(f"\n{answer}" if question else answer)
    return found


def encode(sample: Sample, tokens: Sequence[list[int]], shape: Shape) -> tuple[Text, int]:
    """`question \\n answer end`, turn after turn, of the tokens of `parts`; and how many turns are in it: of a sample
    that is longer than a row, the last ones are left out.

    Raises:
        DataError: its first turn alone doesn't fit, or its tokens mean a picture.
    """
    if any(shape.image_token in part for part in tokens):
        raise DataError(f"the text of {sample.key} holds the token that stands for a picture, {shape.image_token}")
    left = iter(tokens)
    first = not any(PLACE in question for question, _ in sample.turns)
    ids = [shape.image_token] * len(sample.images) * first
    learnt, kept = [False] * len(ids), Text((), (), 0)
    for number, (question, _) in enumerate(sample.turns):
        for place in range(question.count(PLACE) + 1):
            asked = [shape.image_token] * (place > 0) + next(left)
            ids += asked
            learnt += [False] * len(asked)
        said = [*next(left), shape.end_token]
        ids += said
        learnt += [True] * len(said)
        text = Text(tuple(ids), tuple(learnt), ids.count(shape.image_token))
        length = text.length(shape.tokens_per_image)
        if length > shape.sequence_length:
            if number:
                return kept, number
            raise DataError(
                f"{sample.key} has {length} tokens, more than data.sequence_length, {shape.sequence_length}: write a "
                f"larger one, or leave the record out"
            )
        kept = text
    return kept, len(sample.turns)
